// The checkpoint sink: every N steps, at the end, and when a run is stopped.

import { definePart } from '../parts.js';
import { z } from '../schema.js';
import type { PipelineContext } from './pipeline.js';
import { type RunContext, type Sink, everyNth } from './sink.js';

/** `checkpoints({ every: 100, keep: 3 })`: complete folders `checkpoint-STEP` in the run's folder; the weights in each
 *  are laid out as Hugging Face lays them out. A last one is written at the end and when the run is stopped. */
export const checkpoints = definePart({
  role: 'sink',
  kind: 'checkpoints',
  schema: z.strictObject({
    every: z.int().positive().optional(),
    /** Older ones are removed. */
    keep: z.int().positive().default(3),
  }),
  create: ({ every, keep }, _context: PipelineContext): Sink => {
    let context: RunContext | undefined;
    let last = 0;
    const save = async (step: number) => {
      const path = await context!.device.checkpoint(step, keep);
      last = step;
      context!.emit({ event: 'checkpoint', step, path });
    };
    return {
      name: 'checkpoints',
      start: (started) => void (context = started),
      due: everyNth(every),
      after: ({ step }) => save(step),
      end: async (lastStep, reason) => {
        if (reason !== 'failed' && lastStep > last) await save(lastStep);
      },
    };
  },
});
