// metrics.jsonl: a line an event, on disk before the next step.

import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { TrainError, messageOf } from '../errors.js';
import { definePart } from '../parts.js';
import { z } from '../schema.js';
import type { PipelineContext } from './pipeline.js';
import type { Sink } from './sink.js';

/** `metrics()`: appends every event but answers to metrics.jsonl in the run's folder, unbuffered. */
export const metrics = definePart({
  role: 'sink',
  kind: 'metrics',
  schema: z.strictObject({ file: z.string().default('metrics.jsonl') }),
  create: ({ file }, _context: PipelineContext): Sink => {
    let descriptor: number | undefined;
    let path = file;
    return {
      name: 'metrics',
      start: ({ outDir }) => {
        path = join(outDir, file);
        descriptor = openSync(path, 'a');
      },
      onEvent: (event) => {
        if (descriptor === undefined || event.event === 'answers') return;
        try {
          writeSync(descriptor, `${JSON.stringify(event)}\n`);
        } catch (cause) {
          throw new TrainError(
            {
              where: path,
              expected: 'room to write',
              received: messageOf(cause),
              remedy: 'free space or choose another --out',
            },
            { cause },
          );
        }
      },
      close: () => {
        if (descriptor !== undefined) closeSync(descriptor);
        descriptor = undefined;
      },
    };
  },
});
