// Requests to the Hub: redirects followed by hand, so that the token reaches the Hub alone, and tried again when a server
// is busy or a connection is lost.

import { setTimeout as sleep } from 'node:timers/promises';
import { HubError, messageOf } from '../errors.js';
import { givenUp as hubGivenUp, malformed, PassingFault } from './faults.js';
import type { HubSettings } from './settings.js';

const MAX_REDIRECTS = 10;
const MAX_DELAY_MS = 30_000;

export interface Request {
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent to the address's own origin alone, wherever it redirects. */
  readonly authorization?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A response whose body has not been read yet. */
export interface Answer extends Disposable {
  readonly response: Response;
  /** Where it came from, after redirects. */
  readonly url: URL;
  /** The body, piece by piece. @throws {PassingFault} when the connection is lost or brings nothing for too long */
  chunks(): AsyncGenerator<Uint8Array>;
}

/** Gets an address: one response, whatever its status, after redirects. Dispose of it.
 *  @throws {PassingFault} when there is no connection, or no response in time
 *  @throws the signal's reason when it is aborted */
export async function request(
  url: string,
  { headers = {}, authorization, signal }: Request,
  { endpoint, token, retry }: HubSettings,
): Promise<Answer> {
  const home = new URL(endpoint).origin;
  const patience = new Patience(retry.stallMs, signal);
  let at = new URL(url);
  const { origin } = at;
  const attempt = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (cause) {
      signal?.throwIfAborted();
      throw lostConnection(at, patience.isOver ? patience.reason : cause);
    }
  };
  try {
    for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
      // encoded bodies have other lengths and ranges than the files
      const sent = new Headers({ 'user-agent': 'sluice', 'accept-encoding': 'identity', ...headers });
      if (at.origin === home && token !== undefined) sent.set('authorization', `Bearer ${token}`);
      if (at.origin === origin && authorization !== undefined) sent.set('authorization', authorization);
      const response = await attempt(() =>
        fetch(at, { redirect: 'manual', headers: sent, signal: patience.signal }),
      );
      patience.renew();
      const location = response.headers.get('location');
      if (response.status < 300 || response.status >= 400 || location === null) {
        return {
          response,
          url: at,
          async *chunks() {
            const body = response.body as ReadableStream<Uint8Array> | null;
            const reader = body?.getReader();
            while (reader) {
              const piece = await attempt(() => reader.read());
              if (piece.done) return;
              patience.renew();
              yield piece.value;
            }
          },
          // gives up what was not read
          [Symbol.dispose]: () => patience.end(),
        };
      }
      await response.body?.cancel();
      at = redirected(at, location);
    }
    throw malformed(`GET ${new URL(url).pathname}`, 'a file', `more than ${MAX_REDIRECTS} redirects`);
  } catch (error) {
    patience.end();
    throw error;
  }
}

/** Runs `work` until it succeeds or fails for good, with longer and longer waits in between.
 *  @param progress a number that grows as the work gets further: attempts are counted from its last growth
 *  @param givenUp makes the error of the last failure
 *  @throws {HubError} when every attempt failed, or what `givenUp` makes */
export async function withRetries<T>(
  where: string,
  work: () => Promise<T>,
  { endpoint, retry }: HubSettings,
  {
    signal,
    progress = () => 0,
    givenUp = (fault, failures) => hubGivenUp(where, fault, failures, endpoint),
  }: {
    readonly signal?: AbortSignal | undefined;
    readonly progress?: () => number;
    readonly givenUp?: (fault: PassingFault, failures: number) => Error;
  } = {},
): Promise<T> {
  let failures = 0;
  let reached = progress();
  for (;;) {
    try {
      return await work();
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof PassingFault)) throw error;
      if (progress() > reached) failures = 0;
      reached = progress();
      if (++failures >= retry.attempts) throw givenUp(error, failures);
      const backOff = Math.min(MAX_DELAY_MS, retry.firstDelayMs * 2 ** (failures - 1));
      const delay = Math.max(error.waitMs, backOff * (0.75 + Math.random() / 2));
      await sleep(delay, undefined, { ...(signal && { signal }) }).catch(() => signal?.throwIfAborted());
    }
  }
}

/** Aborts a request when nothing comes for too long, or the caller wants no more of it. */
class Patience {
  readonly reason = new Error('nothing came for too long');
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #outer: AbortSignal | undefined;
  readonly #stop = (): void => this.#controller.abort(this.#outer?.reason);

  constructor(ms: number, outer: AbortSignal | undefined) {
    this.#outer = outer;
    this.#timer = setTimeout(() => this.#controller.abort(this.reason), ms);
    if (outer?.aborted) this.#stop();
    else outer?.addEventListener('abort', this.#stop);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }
  get isOver(): boolean {
    return this.#controller.signal.reason === this.reason;
  }
  renew(): void {
    this.#timer.refresh();
  }
  end(): void {
    clearTimeout(this.#timer);
    this.#outer?.removeEventListener('abort', this.#stop);
    this.#controller.abort();
  }
}

/** In words: fetch keeps them in the cause. */
function lostConnection(at: URL, error: unknown): PassingFault {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const words = messageOf(cause) || (cause as NodeJS.ErrnoException).code || 'closed';
  return new PassingFault(`no connection to ${at.host} (${words})`, 0, { cause: error });
}

function redirected(from: URL, location: string): URL {
  const to = URL.canParse(location, from.href) ? new URL(location, from) : undefined;
  if (to && /^https?:$/.test(to.protocol)) return to;
  throw new HubError({
    where: `GET ${from.pathname}`,
    expected: 'a redirect to an http address',
    received: to ? `one of ${to.protocol}` : 'one to no address',
    remedy: 'see what HF_ENDPOINT says, and whether a proxy is in between',
  });
}
