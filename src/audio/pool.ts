// Threads that decode clips. They start when clips come, end when none has come for a while, and never keep the process
// alive by themselves. A thread that crashes, hangs or runs out of memory costs its clip alone.

import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { AudioError, messageOf } from '../errors.js';
import type { ClipRequest } from './decode-clip.js';
import { NeedsFfmpeg } from './faults.js';
import type { FromThread, ToThread } from './messages.js';
import type { DecodedAudio } from './types.js';

export interface PoolOptions {
  /** The compiled module that a thread runs. */
  readonly entry: URL;
  readonly numThreads?: number;
  /** For one clip without a sign of life. */
  readonly timeoutMs?: number;
  /** After which threads without work end. */
  readonly idleMs?: number;
  /** JavaScript heap of a thread; samples and decoders lie outside of it. */
  readonly heapMiB?: number;
}

interface Job {
  readonly clip: ClipRequest;
  readonly bytes: Uint8Array;
  readonly resolve: (decoded: DecodedAudio) => void;
  readonly reject: (error: unknown) => void;
  /** Nobody waits for it any more. */
  isDropped: boolean;
}

/** Clips up to here are handed over whole. */
const WHOLE_BYTES = 2 ** 20;

/** A queue of clips before a few threads. */
export class DecoderPool {
  readonly #options: Required<PoolOptions>;
  readonly #queue: Job[] = [];
  readonly #threads = new Set<Thread>();

  constructor(options: PoolOptions) {
    this.#options = {
      numThreads: Math.min(4, availableParallelism()),
      timeoutMs: 60_000,
      idleMs: 5_000,
      heapMiB: 256,
      ...options,
    };
  }

  /** Threads that are there now. */
  get size(): number {
    return this.#threads.size;
  }

  /** Decodes a clip on a thread. @param bytes stay unchanged until the promise settles
   *  @throws {AudioError} when the clip cannot be decoded, or its thread stops @throws {NeedsFfmpeg}
   *  @throws the signal's reason when it is aborted */
  async decode(bytes: Uint8Array, clip: ClipRequest, signal?: AbortSignal): Promise<DecodedAudio> {
    signal?.throwIfAborted();
    const { promise, resolve, reject } = withResolvers<DecodedAudio>();
    const job: Job = { clip, bytes, resolve, reject, isDropped: false };
    const drop = (): void => {
      job.isDropped = true;
      reject(signal?.reason);
      const place = this.#queue.indexOf(job);
      if (place >= 0) this.#queue.splice(place, 1);
    };
    signal?.addEventListener('abort', drop, { once: true });
    this.#queue.push(job);
    this.#assign();
    try {
      return await promise;
    } finally {
      signal?.removeEventListener('abort', drop);
    }
  }

  /** Ends all threads at once; clips under way are rejected. */
  async close(): Promise<void> {
    const closed = new AudioError('audio: the decoding threads were closed');
    for (const job of this.#queue.splice(0)) job.reject(closed);
    await Promise.all([...this.#threads].map((thread) => thread.end(closed)));
  }

  #assign(): void {
    while (this.#queue.length > 0) {
      let thread = [...this.#threads].find(({ isIdle }) => isIdle);
      if (!thread && this.#threads.size < this.#options.numThreads) {
        thread = new Thread(
          this.#options,
          () => this.#assign(),
          (ended) => this.#remove(ended),
        );
        this.#threads.add(thread);
      }
      if (!thread) return;
      thread.start(this.#queue.shift()!);
    }
  }

  #remove(thread: Thread): void {
    this.#threads.delete(thread);
    this.#assign();
  }
}

class Thread {
  readonly #worker: Worker;
  readonly #options: Required<PoolOptions>;
  #job: Job | undefined;
  #timer: NodeJS.Timeout | undefined;
  #hasEnded = false;

  constructor(
    options: Required<PoolOptions>,
    readonly onIdle: () => void,
    readonly onEnd: (thread: Thread) => void,
  ) {
    this.#options = options;
    // What decoders print is told through errors.
    this.#worker = new Worker(options.entry, {
      name: 'sluice audio',
      stdout: true,
      stderr: true,
      // Not the program's own flags: some are for its main module alone.
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: options.heapMiB },
    });
    this.#worker.on('message', (message: FromThread) => this.#take(message));
    this.#worker.on('messageerror', (error) => void this.end(error));
    this.#worker.on('error', (error) => void this.end(error));
    this.#worker.on('exit', (code) => void this.end(new Error(`it ended with code ${code}`)));
  }

  get isIdle(): boolean {
    return !this.#job && !this.#hasEnded;
  }

  start(job: Job): void {
    this.#job = job;
    this.#worker.ref();
    this.#watch();
    const { clip, bytes } = job;
    const length = bytes.length;
    // A copy: the bytes may be a view of a whole row group, and a message takes all that is behind a view.
    if (length <= WHOLE_BYTES) this.#post({ clip, length, bytes: copyOf(bytes) });
    else this.#post({ clip, length });
  }

  /** Ends the thread; the clip under way is rejected with the reason. */
  async end(cause: unknown): Promise<void> {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearTimeout(this.#timer);
    const job = this.#job;
    this.#job = undefined;
    job?.reject(cause instanceof AudioError ? cause : stopped(job.clip.where, cause));
    this.onEnd(this);
    await this.#worker.terminate();
  }

  #take(message: FromThread): void {
    const job = this.#job;
    if (!job || this.#hasEnded) return;
    if ('read' in message) {
      this.#watch();
      const { offset, length } = message.read;
      // Nothing more for a clip that nobody waits for: it fails over there, soon.
      const piece = job.isDropped ? new Uint8Array(0) : copyOf(job.bytes.subarray(offset, offset + length));
      return this.#post({ piece });
    }
    this.#job = undefined;
    if ('decoded' in message) job.resolve(message.decoded);
    else job.reject(errorOf(message, job.clip.where));
    if ('isBroken' in message && message.isBroken) return void this.end(new Error('a decoder broke'));
    this.#rest();
    this.onIdle();
  }

  #post(message: ToThread): void {
    const buffers = 'piece' in message ? [message.piece.buffer] : message.bytes ? [message.bytes.buffer] : [];
    this.#worker.postMessage(message, buffers as ArrayBuffer[]);
  }

  /** Waits for a sign of life. */
  #watch(): void {
    clearTimeout(this.#timer);
    const { timeoutMs } = this.#options;
    this.#timer = setTimeout(() => void this.end(new Error(`nothing for ${timeoutMs / 1000} s`)), timeoutMs);
  }

  #rest(): void {
    clearTimeout(this.#timer);
    this.#worker.unref();
    this.#timer = setTimeout(() => void this.end(new Error('idle')), this.#options.idleMs).unref();
  }
}

/** Memory of its own: a Buffer's slice would share it. */
function copyOf(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(bytes.length);
  copy.set(bytes);
  return copy;
}

function errorOf(message: Extract<FromThread, { failed: string }>, where: string): Error {
  const { failed, stack, ffmpeg } = message;
  const error = ffmpeg ? new NeedsFfmpeg(where, ffmpeg.demuxer, ffmpeg.found) : new AudioError(failed);
  return stack === undefined ? error : Object.assign(error, { stack });
}

function stopped(where: string, cause: unknown): AudioError {
  return new AudioError(
    {
      where,
      expected: 'the decoder to come to an end',
      received: messageOf(cause),
      remedy: 'the file may be corrupt, or made to harm: drop the row',
    },
    { cause },
  );
}

function withResolvers<T>(): {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: unknown) => void;
} {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((res, rej) => {
    resolve = res;
    reject = rej;
  });
  return { promise, resolve, reject };
}
