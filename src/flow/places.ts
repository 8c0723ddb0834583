// The order of a stream, for going on where it stood: which samples came of which item, and how many are done.
//
// With order kept, everything before the item that a value's last sample is of is settled or delivered when the value
// is made. So a position is that item, how many of its samples have come, and the counts of what is before.

import type { SampleTicket } from './ticket.js';
import type { FlowPosition, Origin, Outcome } from './types.js';

/** What came of one item. */
interface Tally {
  readonly item: number;
  readonly cursor: unknown;
  issued: number;
  dropped: number;
  quarantined: number;
  /** Samples that have arrived, those done before included. */
  arrived: number;
  /** Of these, the ones done before this run, and the ones that were then quarantined. */
  repeated: number;
  arrivedQuarantined: number;
}

/** Tallies beyond which those that are all settled are folded, though nothing has been delivered behind them. */
const MANY = 1024;

export class Places {
  /** By the sequence of the item's tickets, in order. */
  readonly #tallies = new Map<number, Tally>();
  readonly #done: { issued: number; dropped: number; quarantined: number };
  #items: number;
  /** Samples of the first item that were done before. */
  readonly #parts: number;
  #first: number | undefined;

  constructor(from?: FlowPosition) {
    this.#done = from ? { ...from.done } : { issued: 0, dropped: 0, quarantined: 0 };
    this.#items = from?.item ?? 0;
    this.#parts = from?.parts ?? 0;
  }

  /** A ticket was issued or split off. */
  issued({ sequence, cursor }: SampleTicket): void {
    const tally = this.#tallies.get(sequence);
    if (tally) {
      tally.issued += 1;
      return;
    }
    this.#first ??= sequence;
    const none = { dropped: 0, quarantined: 0, arrived: 0, repeated: 0, arrivedQuarantined: 0 };
    this.#tallies.set(sequence, { item: this.#items++, cursor, issued: 1, ...none });
  }

  settled({ sequence, arrival }: SampleTicket, outcome: Outcome, lowestOpen: number): void {
    if (outcome === 'trained') return;
    const tally = this.#tallies.get(sequence);
    if (!tally) {
      this.#done[outcome] += 1; // a sample that others have overtaken
      return;
    }
    tally[outcome] += 1;
    if (arrival > 0 && outcome === 'quarantined') tally.arrivedQuarantined += 1;
    if (this.#tallies.size > MANY) this.#fold(lowestOpen);
  }

  /** @returns its number among the samples of its item, from 1; 0 for one that was done before this run */
  arrived({ sequence }: SampleTicket): number {
    const tally = this.#tallies.get(sequence);
    if (!tally) return 1;
    tally.arrived += 1;
    if (sequence !== this.#first || tally.arrived > this.#parts) return tally.arrived;
    tally.repeated += 1;
    tally.issued -= 1;
    return 0;
  }

  /** Where the stream stands behind a ticket that has arrived. */
  behind({ sequence, origin, arrival }: SampleTicket): FlowPosition {
    this.#fold(sequence);
    const tally = this.#tallies.get(sequence);
    const { issued, dropped, quarantined } = this.#done;
    return {
      item: tally?.item ?? this.#items,
      origin: withoutFolder(origin),
      ...(tally?.cursor === undefined ? {} : { cursor: tally.cursor }),
      parts: arrival,
      done: {
        issued: issued + arrival - (tally?.repeated ?? 0),
        dropped,
        quarantined: quarantined + (tally?.arrivedQuarantined ?? 0),
      },
    };
  }

  #fold(before: number): void {
    for (const [sequence, tally] of this.#tallies) {
      if (sequence >= before) return;
      this.#tallies.delete(sequence);
      for (const key of ['issued', 'dropped', 'quarantined'] as const) this.#done[key] += tally[key];
    }
  }
}

/** Files may lie elsewhere when a run is continued. */
export function withoutFolder(origin: Origin): Origin {
  return { ...origin, file: origin.file.replace(/^.*[\\/]/s, '') };
}
