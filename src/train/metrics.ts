// metrics.jsonl: a line an event, on disk before the next step.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { TrainError, messageOf } from '../errors.js';
import { definePart } from '../parts.js';
import { z } from '../schema.js';
import type { FlowPosition } from '../flow/index.js';
import type { RunEvent } from './events.js';
import type { PipelineContext } from './pipeline.js';
import { isBehind } from './quarantine-book.js';
import { ON_ERROR, type Sink } from './sink.js';

const DEFAULT_FILE = 'metrics.jsonl';

/** `metrics()`: writes every event but answers to metrics.jsonl in the run's folder, unbuffered; a step's fields are named
 *  in `StepEvent`. A run that is continued
 *  appends to it, after taking out the steps that it is going to do again. */
export const metrics = definePart({
  role: 'sink',
  kind: 'metrics',
  schema: z.strictObject({ file: z.string().min(1).default(DEFAULT_FILE), onError: ON_ERROR }),
  create: ({ file, onError }, _context: PipelineContext): Sink => {
    let descriptor: number | undefined;
    let path = file;
    return {
      name: 'metrics',
      onError,
      leftovers: () => [file],
      start: ({ outDir, resumedAt, resumedFrom }) => {
        path = join(outDir, file);
        writing(path, () => {
          if (resumedAt !== undefined && fs.existsSync(path)) forget(path, resumedAt, resumedFrom);
          descriptor = fs.openSync(path, 'a');
        });
      },
      onEvent: (event) => {
        if (descriptor === undefined || event.event === 'answers') return;
        const to = descriptor;
        writing(path, () => fs.appendFileSync(to, `${JSON.stringify(event)}\n`));
      },
      close: () => {
        if (descriptor !== undefined) fs.closeSync(descriptor);
        descriptor = undefined;
      },
    };
  },
});

/** The events up to a step that metrics.jsonl holds, as far as it is there.
 *  @param position where the stream stood behind that step */
export function readMetrics(outDir: string, step: number, position: FlowPosition | undefined): RunEvent[] {
  const path = join(outDir, DEFAULT_FILE);
  if (!fs.existsSync(path)) return [];
  return linesUpTo(path, step, position).map((line) => JSON.parse(line) as RunEvent);
}

/** Takes out the events after a step, rows that the stream had quarantined ahead of it, and a last line that was cut off:
 *  all that is told again. */
function forget(path: string, step: number, position: FlowPosition | undefined): void {
  const kept = linesUpTo(path, step, position).map((line) => `${line}\n`);
  fs.writeFileSync(`${path}.partial`, kept.join(''));
  fs.renameSync(`${path}.partial`, path);
}

function linesUpTo(path: string, step: number, position: FlowPosition | undefined): string[] {
  const lines = fs.readFileSync(path, 'utf8').split('\n');
  return lines.filter((line) => {
    const event = eventOf(line);
    if (!event) return false;
    if (event.event === 'quarantine') return isBehind(event, { step, position });
    return ('step' in event ? event.step : 0) <= step;
  });
}

/** undefined for what is no event. */
function eventOf(line: string): RunEvent | undefined {
  try {
    return JSON.parse(line) as RunEvent;
  } catch {
    return undefined;
  }
}

function writing(path: string, work: () => void): void {
  try {
    work();
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
}
