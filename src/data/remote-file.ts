// A file on a server, read by ranges. What it is (length, ETag or date) is pinned when it is first asked for, and every
// response is held against that: a file that changes while a run reads it is an error, not a mixture of two files.

import { DataError, HubError } from '../errors.js';
import { PassingFault } from '../hub/faults.js';
import { request, withRetries } from '../hub/request.js';
import { hubSettings, type HubSettings } from '../hub/settings.js';
import type { Stamp } from './stamp.js';
import {
  brokenAnswer,
  changed,
  contentRange,
  refused,
  stampOf,
  stampText,
  unanswered,
  withoutRanges,
} from './remote-faults.js';
import { remoteUrl, type RemoteUrl } from './remote-url.js';

/** What is kept of a file between its openings. */
interface Pin {
  readonly stamp: Stamp;
  readonly head: Uint8Array;
  /** The file's end, where formats keep their tables of contents. */
  tail: Uint8Array;
}

const pins = new Map<string, Pin>();
const MAX_PINS = 10_000;

const HEAD_BYTES = 16;
/** The tail is 1/64 of the file, so that next to nothing is fetched that nobody asked for, and at most this. */
const MAX_TAIL_BYTES = 2 ** 16;
/** A table of contents of at most so many bytes is kept, so that it is fetched once. */
const MAX_KEPT_BYTES = 2 ** 20;
/** Small pieces are read in blocks of so many bytes, of which the last few are kept. */
const BLOCK_BYTES = 2 ** 16;
const MAX_BLOCKS = 8;

export interface RemoteOptions {
  readonly signal?: AbortSignal | undefined;
  /** Ask the server what the file is now, though it was asked before. */
  readonly afresh?: boolean;
  readonly settings?: HubSettings;
}

export class RemoteFile {
  /** The address without secrets. */
  readonly name: string;
  readonly stamp: Stamp;
  readonly #client: Client;
  readonly #pin: Pin;
  readonly #blocks = new Map<number, Uint8Array>();

  private constructor(client: Client, pin: Pin) {
    this.name = client.url.name;
    this.stamp = pin.stamp;
    this.#client = client;
    this.#pin = pin;
  }

  /** Asks for the file's beginning and end, once a process; `afresh` asks again.
   *  @throws {DataError} when there is no such file, or its server does not answer ranges */
  static async open(path: string, options: RemoteOptions = {}): Promise<RemoteFile> {
    const { signal, afresh = false, settings = hubSettings() } = options;
    const client = new Client(remoteUrl(path, settings), settings, signal);
    const { href } = client.url;
    const known = afresh ? undefined : pins.get(href);
    const pin = known ?? (await pinned(client));
    if (!known && pins.size >= MAX_PINS) pins.delete(pins.keys().next().value!);
    pins.set(href, pin);
    return new RemoteFile(client, pin);
  }

  /** Bytes [start, start + length) in a buffer of their own. */
  async read(start: number, length: number): Promise<Uint8Array> {
    const end = start + length;
    const { size } = this.stamp;
    if (end > size) throw new RangeError(`the file ends at byte ${size}`);
    const { head, tail } = this.#pin;
    if (end <= head.length) return head.slice(start, end);
    if (start >= size - tail.length) return tail.slice(start - size + tail.length, end - size + tail.length);
    if (end === size && length <= MAX_KEPT_BYTES) {
      this.#pin.tail = await this.#client.read(start, length, this.stamp);
      return this.#pin.tail.slice();
    }
    if (length > BLOCK_BYTES / 2) return this.#client.read(start, length, this.stamp);
    const bytes = new Uint8Array(length);
    for (let at = start; at < end;) {
      const block = Math.floor(at / BLOCK_BYTES);
      const offset = at - block * BLOCK_BYTES;
      const piece = (await this.#block(block)).subarray(offset, offset + end - at);
      bytes.set(piece, at - start);
      at += piece.length;
    }
    return bytes;
  }

  /** As `read`, and no byte more is fetched. */
  readExactly(start: number, length: number): Promise<Uint8Array> {
    return this.#client.read(start, length, this.stamp);
  }

  async #block(number: number): Promise<Uint8Array> {
    let block = this.#blocks.get(number);
    if (!block) {
      const start = number * BLOCK_BYTES;
      block = await this.#client.read(start, Math.min(BLOCK_BYTES, this.stamp.size - start), this.stamp);
      if (this.#blocks.size >= MAX_BLOCKS) this.#blocks.delete(this.#blocks.keys().next().value!);
      this.#blocks.set(number, block);
    }
    return block;
  }
}

async function pinned(client: Client): Promise<Pin> {
  const { stamp, head } = await client.begin();
  const tailBytes = Math.min(stamp.size, Math.max(8, Math.min(MAX_TAIL_BYTES, Math.ceil(stamp.size / 64))));
  return { stamp, head, tail: await client.read(stamp.size - tailBytes, tailBytes, stamp) };
}

/** Asks one address, again where that may help. */
class Client {
  constructor(
    readonly url: RemoteUrl,
    readonly settings: HubSettings,
    readonly signal: AbortSignal | undefined,
  ) {}

  /** The first bytes, and what the file is. */
  async begin(): Promise<{ readonly stamp: Stamp; readonly head: Uint8Array }> {
    const { name } = this.url;
    return this.#attempts(async () => {
      using answer = await this.#ask({ range: `bytes=0-${HEAD_BYTES - 1}` });
      const { response } = answer;
      if (response.status === 416 || (response.status === 200 && lengthOf(response) === 0)) {
        return { stamp: stampOf(response, 0), head: new Uint8Array() };
      }
      if (response.status === 200) throw withoutRanges(name);
      if (response.status !== 206) throw refused(name, response);
      assertPlain(name, response);
      const range = contentRange(response);
      if (range?.start !== 0 || range.size === undefined) {
        const said = response.headers.get('content-range') ?? 'none';
        throw brokenAnswer(name, "a range with the file's length", said.slice(0, 100));
      }
      const head = new Uint8Array(Math.min(HEAD_BYTES, range.size));
      const filled = await fill(name, head, 0, answer.chunks());
      if (filled < head.length) throw cutOff(filled, head.length);
      return { stamp: stampOf(response, range.size), head };
    });
  }

  /** Bytes [start, start + length) of the file that was pinned. What has come of them is not asked for again. */
  async read(start: number, length: number, pin: Stamp): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    if (length === 0) return bytes;
    let done = 0;
    const { name } = this.url;
    await this.#attempts(
      async () => {
        // A weak ETag is no condition for a range.
        const range = { range: `bytes=${start + done}-${start + length - 1}` };
        const { etag } = pin;
        using answer = await this.#ask(etag?.startsWith('"') ? { ...range, 'if-range': etag } : range);
        assertPart(name, answer.response, start + done, pin);
        const counted = (async function* () {
          for await (const piece of answer.chunks()) {
            yield piece;
            done += piece.length;
          }
        })();
        const filled = await fill(name, bytes, done, counted);
        if (filled < length) throw cutOff(filled, length);
      },
      () => done,
    );
    return bytes;
  }

  #ask(headers: Readonly<Record<string, string>>): ReturnType<typeof request> {
    const { href, authorization } = this.url;
    return request(href, { headers, authorization, signal: this.signal }, this.settings);
  }

  async #attempts<T>(work: () => Promise<T>, progress = (): number => 0): Promise<T> {
    const { signal, settings } = this;
    const { name } = this.url;
    const givenUp = (fault: PassingFault, failures: number): Error => unanswered(name, fault, failures);
    try {
      return await withRetries(name, work, settings, { signal, progress, givenUp });
    } catch (error) {
      if (!(error instanceof HubError)) throw error;
      throw new DataError(
        {
          where: name,
          expected: 'a file to read',
          received: error.message,
          remedy: 'correct the address',
        },
        { cause: error },
      );
    }
  }
}

/** Writes what comes into `bytes` from `done` on. @returns how far it came */
async function fill(
  name: string,
  bytes: Uint8Array,
  done: number,
  pieces: AsyncIterable<Uint8Array>,
): Promise<number> {
  for await (const piece of pieces) {
    if (done + piece.length > bytes.length) {
      throw brokenAnswer(name, `no more than the ${bytes.length} bytes that were asked for`, 'more');
    }
    bytes.set(piece, done);
    done += piece.length;
  }
  return done;
}

/** Checks that a response brings the file that was pinned, from `start` on. */
function assertPart(name: string, response: Response, start: number, pin: Stamp): void {
  const { status, headers } = response;
  if (status === 412) throw changed(name, pin, 'another (HTTP 412)');
  if (status !== 200 && status !== 206 && status !== 416) throw refused(name, response);
  const range = contentRange(response);
  const unsatisfied = /^bytes \*\/(\d+)$/.exec(headers.get('content-range') ?? '')?.[1];
  const size = status === 200 ? lengthOf(response) : (range?.size ?? (unsatisfied && Number(unsatisfied)));
  const now = stampOf(response, typeof size === 'number' ? size : pin.size);
  if (isOther(pin, now)) throw changed(name, pin, `one of ${stampText(now)}`);
  if (status === 200) throw withoutRanges(name);
  assertPlain(name, response);
  if (range?.start === start) return;
  const said = headers.get('content-range') ?? 'none';
  throw brokenAnswer(name, `the file's bytes from ${start} on`, `HTTP ${status}, ${said.slice(0, 100)}`);
}

/** ETags decide where both have one; a server that names no date is not asked for one. */
function isOther(before: Stamp, now: Stamp): boolean {
  if (before.size !== now.size) return true;
  if (before.etag !== undefined && now.etag !== undefined) return before.etag !== now.etag;
  return before.mtimeMs > 0 && now.mtimeMs > 0 && before.mtimeMs !== now.mtimeMs;
}

function assertPlain(name: string, { headers }: Response): void {
  const coding = headers.get('content-encoding') ?? 'identity';
  if (coding === 'identity') return;
  throw brokenAnswer(name, 'bytes as they are in the file', `them encoded as ${coding.slice(0, 40)}`);
}

function lengthOf({ headers }: Response): number | undefined {
  const length = headers.get('content-length');
  return length === null ? undefined : Number(length);
}

function cutOff(received: number, length: number): PassingFault {
  return new PassingFault(`${received} of ${length} bytes, then the end of the connection`);
}
