// The host's side of a device thread: a worker that owns the engine, called by name, its calls done in order.
// Arguments cross by structured clone; typed arrays named in `transfer` move without a copy.

import { Worker } from 'node:worker_threads';
import type { Transferable } from 'node:worker_threads';
import { TrainError, messageOf } from '../errors.js';

/** @internal What the host posts. */
export interface Call {
  readonly id: number;
  readonly method: string;
  readonly args: readonly unknown[];
}

/** @internal What the worker posts back. */
export type Answer =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: { name: string; code: string; message: string; stack?: string } };

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Methods as the host calls them: each answers with a promise. */
export type Remote<Api> = {
  [K in keyof Api]: Api[K] extends (...args: infer A) => infer R
    ? (...args: A) => Promise<Awaited<R>>
    : never;
};

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
    this.#worker.on('error', (error) => this.#end(error));
    this.#worker.on('exit', (code) => this.#end(new Error(`the thread ended with code ${code}`)));
  }

  /** Calls a method. @param transfer buffers that move to the worker; they are empty here afterwards
   *  @throws {TrainError} when the thread has died; the method's own error otherwise */
  async call<K extends keyof Api & string>(
    method: K,
    args: Api[K] extends (...args: infer A) => unknown ? A : never,
    transfer: readonly Transferable[] = [],
  ): Promise<Api[K] extends (...args: never) => infer R ? Awaited<R> : never> {
    if (this.#ended) throw this.#ended;
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#worker.postMessage({ id, method, args } satisfies Call, transfer);
    });
  }

  /** Ends the thread at once; calls that are still open are rejected. */
  async terminate(): Promise<void> {
    this.#ended ??= new TrainError('device thread: it was closed');
    await this.#worker.terminate();
  }

  #settle(answer: Answer): void {
    const waiting = this.#waiting.get(answer.id);
    if (!waiting) return;
    this.#waiting.delete(answer.id);
    if ('error' in answer) waiting.reject(revive(answer.error));
    else waiting.resolve(answer.value);
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

/** An error as it was on the device thread: name, code and stack kept. */
function revive(sent: { name: string; code: string; message: string; stack?: string }): Error {
  const error = new TrainError(sent.message);
  return Object.assign(error, { name: sent.name, code: sent.code, ...(sent.stack && { stack: sent.stack }) });
}
