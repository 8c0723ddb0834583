// A source that does not answer: after a time its flow fails with its name and the last row that it gave.

import { FlowError } from '../errors.js';
import { checkPositive } from './options.js';
import { place } from './ticket.js';
import type { Cursor, Origin, Source, SourceFault, SourceItem } from './types.js';

/** The same source, which fails when its next item does not come within `timeoutMs`; its signal is aborted then. The time
 *  that nothing is asked of it does not count.
 *  @param timeoutMs milliseconds; Infinity for the source as it is */
export function timeoutSource<T>(source: Source<T>, timeoutMs: number): Source<T> {
  if (timeoutMs === Infinity) return source;
  checkPositive('source: timeoutMs', timeoutMs);
  return {
    name: source.name,
    ...(source.maxItemBytes === undefined ? {} : { maxItemBytes: source.maxItemBytes }),
    open: (signal, from) => ({ [Symbol.asyncIterator]: () => new Watched(source, timeoutMs, signal, from) }),
  };
}

type Item<T> = SourceItem<T> | SourceFault;

/** One timer for all items: it looks, now and then, for how long the last question has been open. */
class Watched<T> implements AsyncIterator<Item<T>> {
  readonly #name: string;
  readonly #timeoutMs: number;
  readonly #ended = new AbortController();
  readonly #iterator: AsyncIterator<Item<T>>;
  readonly #timer: NodeJS.Timeout;
  #last: Origin | undefined;
  #asked: { readonly at: number; readonly reject: (error: unknown) => void } | undefined;

  constructor(source: Source<T>, timeoutMs: number, signal: AbortSignal, from: Cursor) {
    this.#name = source.name;
    this.#timeoutMs = timeoutMs;
    const either = AbortSignal.any([signal, this.#ended.signal]);
    this.#iterator = source.open(either, from)[Symbol.asyncIterator]();
    this.#timer = setInterval(() => this.#look(), Math.min(1000, Math.max(1, timeoutMs / 4)));
    this.#timer.unref();
  }

  next(): Promise<IteratorResult<Item<T>>> {
    return new Promise((resolve, reject) => {
      this.#asked = { at: performance.now(), reject };
      this.#iterator.next().then(
        (result) => {
          this.#asked = undefined;
          if (result.done === true) clearInterval(this.#timer);
          else this.#last = result.value.origin;
          resolve(result);
        },
        (error: Error) => {
          this.#asked = undefined;
          clearInterval(this.#timer);
          reject(error);
        },
      );
    });
  }

  async return(): Promise<IteratorResult<Item<T>>> {
    clearInterval(this.#timer);
    // One that does not answer would not answer this either.
    if (!this.#ended.signal.aborted) await this.#iterator.return?.();
    return { done: true, value: undefined };
  }

  #look(): void {
    const asked = this.#asked;
    if (!asked || performance.now() - asked.at < this.#timeoutMs) return;
    clearInterval(this.#timer);
    const error = new FlowError({
      where: `source ${this.#name}`,
      expected: `its next item within ${this.#timeoutMs} ms`,
      received: `none since ${this.#last ? place(this.#last) : 'it was opened'}`,
      remedy: 'find out what it waits for (a disk, a share, a server), or raise sourceTimeoutMs',
    });
    this.#ended.abort(error);
    asked.reject(error);
  }
}
