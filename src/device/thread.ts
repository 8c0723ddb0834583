// The host's side of a device thread: a worker that owns the engine, called by name, its calls done in order.
// Arguments cross by structured clone; typed arrays named in `transfer` move without a copy.

import { Worker } from 'node:worker_threads';
import type { Transferable } from 'node:worker_threads';
import { TrainError, messageOf } from '../errors.js';
import { type SentError, revive } from './sent-error.js';

/** @internal What the host posts: a call, or that a call's answer is not wanted any more. */
export type Request =
  | { readonly id: number; readonly method: string; readonly args: readonly unknown[] }
  | { readonly cancel: number };

/** @internal What the worker posts back. */
export type Answer =
  { readonly id: number; readonly value: unknown } | { readonly id: number; readonly error: SentError };

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export interface CallOptions {
  /** Buffers that move to the worker; they are empty here afterwards. */
  readonly transfer?: readonly Transferable[];
  /** When it is aborted, the signal that the method gets over there is aborted too. The call still ends by itself. */
  readonly signal?: AbortSignal;
}

/** A method's arguments as the host gives them: the signal that may come last crosses as `CallOptions.signal`. */
type Arguments<Method> = Method extends (...args: infer A) => unknown
  ? A extends [...infer Head, AbortSignal?]
    ? Head
    : A
  : never;
type Result<Method> = Method extends (...args: never) => infer R ? Awaited<R> : never;

/** A worker thread that serves `Api` (see `serve`). Calls are queued there and done one after the other. */
export class DeviceThread<Api> {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #ended: Error | undefined;

  /** @param entry URL of a compiled module that calls `serve` */
  constructor(entry: URL, workerData?: unknown) {
    this.#worker = new Worker(entry, { workerData, name: 'sluice device' });
    this.#worker.on('message', (answer: Answer) => this.#settle(answer));
    this.#worker.on('messageerror', (error) => this.#end(error));
    this.#worker.on('error', (error) => this.#end(error));
    this.#worker.on('exit', (code) => this.#end(new Error(`the thread ended with code ${code}`)));
  }

  /** Calls a method.
   *  @throws {TrainError} when the thread has died; the method's own error otherwise: its class where it is one of ours,
   *    its name, message, code and stack in any case */
  async call<K extends keyof Api & string>(
    method: K,
    args: Arguments<Api[K]>,
    { transfer = [], signal }: CallOptions = {},
  ): Promise<Result<Api[K]>> {
    if (this.#ended) throw this.#ended;
    const id = this.#nextId++;
    const cancel = () => this.#post({ cancel: id });
    try {
      const answer = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
      this.#post({ id, method, args }, transfer);
      if (signal?.aborted) cancel();
      signal?.addEventListener('abort', cancel, { once: true });
      return (await answer) as Result<Api[K]>;
    } finally {
      this.#waiting.delete(id);
      signal?.removeEventListener('abort', cancel);
    }
  }

  /** Ends the thread at once; calls that are still open are rejected. */
  async terminate(): Promise<void> {
    this.#ended ??= new TrainError('device thread: it was closed');
    await this.#worker.terminate();
  }

  #post(request: Request, transfer: readonly Transferable[] = []): void {
    this.#worker.postMessage(request, transfer);
  }

  #settle(answer: Answer): void {
    const waiting = this.#waiting.get(answer.id);
    if ('error' in answer) waiting?.reject(revive(answer.error));
    else waiting?.resolve(answer.value);
  }

  #end(cause: unknown): void {
    this.#ended ??= new TrainError(
      {
        where: 'device thread',
        expected: 'it to run until the end',
        received: messageOf(cause),
        remedy: 'start again from the last checkpoint',
      },
      { cause },
    );
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
  }
}
