// A source drawn in marbles: an item is there from its time on, and given when it is asked for.

import type { Origin, Source, SourceFault, SourceItem } from '../flow/index.js';
import type { VirtualClock } from './clock.js';
import type { Mark } from './marbles.js';

/** Stands for an item that a source could not read, in the `values` of a test. */
export class Fault {
  constructor(readonly error: unknown) {}
}

/** An item that the source cannot read: it is quarantined under the source's name.
 *  @example values: { a: 1, x: fault(new Error('bad page')) } */
export function fault(error: unknown): Fault {
  return new Fault(error);
}

export interface MarbleSourceOptions {
  readonly clock: VirtualClock;
  readonly marks: readonly Mark[];
  readonly valueOf: (key: string) => unknown;
  readonly bytesOf: (key: string) => number;
  readonly maxItemBytes: number | undefined;
  readonly error: unknown;
  /** Gets the letter of what is asked for, '|' or '#'. */
  readonly onPull: (key: string) => void;
}

export const SOURCE = 'source';

export function rowOf(row: number): Origin {
  return { file: SOURCE, rowGroup: 0, row };
}

/** Opened once, as a run does. One without '|' never ends. */
export function marbleSource(options: MarbleSourceOptions): Source<unknown> {
  const { clock, marks, maxItemBytes } = options;
  const until = (ms: number, signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      const forget = clock.after(ms - clock.nowMs, resolve);
      signal.addEventListener('abort', forget, { once: true });
    });
  return {
    name: SOURCE,
    ...(maxItemBytes !== undefined && { maxItemBytes }),
    open: (signal) => {
      let row = 0;
      const next = async (): Promise<IteratorResult<SourceItem<unknown> | SourceFault>> => {
        const mark = marks[row];
        if (mark === undefined) return new Promise(() => {});
        options.onPull(mark.key);
        if (mark.ms > clock.nowMs) await until(mark.ms, signal);
        if (mark.key === '#') throw options.error;
        if (mark.key === '|') return { done: true, value: undefined };
        const value = options.valueOf(mark.key);
        const item = { bytes: options.bytesOf(mark.key), origin: rowOf(row++) };
        return {
          done: false,
          value: value instanceof Fault ? { ...item, error: value.error } : { ...item, value },
        };
      };
      return {
        [Symbol.asyncIterator]: () => ({ next, return: async () => ({ done: true, value: undefined }) }),
      };
    },
  };
}
