// The checkpoint sink: every N steps, at the end, and when a run is stopped.

import { basename } from 'node:path';
import { listCheckpoints } from '../checkpoint/index.js';
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
  create: ({ every, keep }, { pipeline }: PipelineContext): Sink => {
    const trains = pipeline.step !== undefined;
    let context: RunContext | undefined;
    let last = -1;
    const save = async () => {
      last = (await context!.device.checkpoint({ keep })).step;
    };
    return {
      name: 'checkpoints',
      // An evaluation may well be of one of them.
      leftovers: (outDir) => (trains ? listCheckpoints(outDir).map(({ folder }) => basename(folder)) : []),
      start: (started) => {
        context = started;
        last = started.resumedAt ?? -1;
      },
      due: everyNth(every),
      after: save,
      end: async (lastStep, outcome) => {
        if (trains && outcome !== 'failed' && lastStep !== last) await save();
      },
    };
  },
});
