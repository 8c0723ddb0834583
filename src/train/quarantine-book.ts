// What streams know of the quarantine: where lost rows are written down, and what a continued run has done with.

import type { FlowPosition, Origin } from '../flow/index.js';
import type { QuarantineEvent } from './events.js';

/** The stream that a run trains on, in events and in the table. */
export const TRAIN_STREAM = 'train';

/** Where a stream brings the rows that it loses. */
export interface QuarantineBook {
  /** Writes a row down, before it is told.
   *  @param origin as its source made it
   *  @param reread reads the row anew; called when the stream has ended, where the source has let go of the row */
  take(event: QuarantineEvent, origin: Origin, reread?: () => Promise<unknown>): void;
  /** @throws {QuarantineError} when too many rows of the training stream are lost */
  judge(event: QuarantineEvent): void;
}

/** Whether a training run that stood at `position` after `step` has done with a row: else it is going to tell it again. */
export function isBehind(
  { stream, item, part, step }: Pick<QuarantineEvent, 'stream' | 'item' | 'part' | 'step'>,
  resumed: { readonly step: number; readonly position: FlowPosition | undefined },
): boolean {
  if (stream !== TRAIN_STREAM) return (step ?? 0) <= resumed.step;
  const { position } = resumed;
  if (!position) return false;
  return item < position.item || (item === position.item && part > 0 && part <= position.parts);
}
