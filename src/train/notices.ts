// What was left out of samples that were used all the same, for people to know: the first few are told, the rest counted.

import type { SampleNotice } from '../data/stages.js';
import { type NoticeEvent, rowName } from './events.js';

/** Notices that are told one by one. */
export const TOLD_NOTICES = 20;

/** The notices of a stream, which may be run again (an evaluation): what was told is not told again. */
export class Notices {
  readonly #told = new Set<string>();
  /** Those beyond, in this run of the stream and in the one that was told last. */
  #further = 0;
  #furtherTold = 0;
  #last: NoticeEvent | undefined;

  take({ stage, origin, message, always }: SampleNotice, emit: (event: NoticeEvent) => void): void {
    const event: NoticeEvent = { event: 'notice', row: rowName(origin), stage, message };
    const key = `${event.row}: ${message}`;
    if (this.#told.has(key)) return;
    if (always || this.#told.size < TOLD_NOTICES) {
      this.#told.add(key);
      return emit(event);
    }
    this.#further += 1;
    this.#last = event;
  }

  /** The stream has ended: the last notice stands for those that were not told. */
  end(emit: (event: NoticeEvent) => void): void {
    const further = this.#further;
    this.#further = 0;
    if (!this.#last || further <= this.#furtherTold) return;
    this.#furtherTold = further;
    emit({ ...this.#last, count: further });
  }
}
