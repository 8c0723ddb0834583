// report.html: one file that shows what a run did, readable without a network: curves, evaluations, sample answers.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SluiceError, messageOf } from '../errors.js';
import { definePart } from '../parts.js';
import { z } from '../schema.js';
import type { PipelineContext } from '../train/pipeline.js';
import type { NoticeEvent, RunEvent } from '../train/events.js';
import { readMetrics } from '../train/metrics.js';
import { ON_ERROR, type RunContext, type Sink } from '../train/sink.js';
import { renderReport, type ReportData } from './page.js';

/** Quarantined rows that the report lists; the rest are counted. */
const SHOWN_ROWS = 50;

/** `report()`: writes report.html into the run's folder when the run ends, however it ends. Of a run that is continued it
 *  shows the whole, as far as metrics.jsonl has it. */
export const report = definePart({
  role: 'sink',
  kind: 'report',
  schema: z.strictObject({ file: z.string().min(1).default('report.html'), onError: ON_ERROR }),
  create: ({ file, onError }, { pipeline }: PipelineContext): Sink => {
    let context: RunContext | undefined;
    const notices: NoticeEvent[] = [];
    const data: ReportData = {
      name: pipeline.name,
      steps: [],
      evals: [],
      answers: new Map(),
      quarantined: [],
      numQuarantined: 0,
      notices,
      warnings: [],
      model: undefined,
      checkpoints: [],
      failedCheckpoints: [],
      end: undefined,
      config: {
        model: pipeline.model,
        step: pipeline.step,
        seed: pipeline.seed,
        poolBytes: pipeline.poolBytes,
      },
    };
    const onEvent = (event: RunEvent) => {
      switch (event.event) {
        case 'step':
          return void data.steps.push(event);
        case 'eval':
          return void data.evals.push(event);
        case 'answers':
          return void data.answers.set(event.name, event);
        case 'end':
          return void (data.end = event);
        case 'quarantine':
          data.numQuarantined += 1;
          if (data.quarantined.length < SHOWN_ROWS) data.quarantined.push(event);
          return;
        case 'notice':
          return void notices.push(event);
        case 'detach': {
          const message = `failed and gets no more: ${event.error}`;
          return void notices.push({
            event: 'notice',
            row: event.row ?? 'the run',
            stage: event.sink,
            message,
          });
        }
        case 'checkpoint-failed':
          return void data.failedCheckpoints?.push(event);
        case 'checkpoint':
          return void data.checkpoints?.push(event);
        case 'warning':
          if (!data.warnings.some(({ kind }) => kind === event.kind)) data.warnings.push(event);
          return;
        case 'model':
          return void (data.model = event);
        case 'stall':
          return;
        default:
          event satisfies never;
      }
    };
    return {
      name: 'report',
      onError,
      leftovers: () => [file],
      start: (started) => {
        context = started;
        const { outDir, resumedAt, resumedFrom } = started;
        if (resumedAt !== undefined) readMetrics(outDir, resumedAt, resumedFrom).forEach(onEvent);
        data.end = undefined;
      },
      onEvent,
      close: async () => {
        if (!context) return;
        const path = join(context.outDir, file);
        await writeFile(path, renderReport(data)).catch((cause: unknown) => {
          throw new SluiceError(
            {
              where: path,
              expected: 'room to write',
              received: messageOf(cause),
              remedy: 'free space or choose another --out',
            },
            { cause },
          );
        });
        context.log(`report ${path}`);
      },
    };
  },
});
