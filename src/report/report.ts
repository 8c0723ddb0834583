// report.html: one file that shows what a run did, readable without a network: curves, evaluations, sample answers.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { definePart } from '../parts.js';
import { z } from '../schema.js';
import type { PipelineContext } from '../train/pipeline.js';
import type { RunContext, Sink } from '../train/sink.js';
import { renderReport, type ReportData } from './page.js';

/** Quarantined rows that the report lists; the rest are counted. */
const SHOWN_ROWS = 50;

/** `report()`: writes report.html into the run's folder when the run ends, however it ends. */
export const report = definePart({
  role: 'sink',
  kind: 'report',
  schema: z.strictObject({ file: z.string().default('report.html') }),
  create: ({ file }, { pipeline }: PipelineContext): Sink => {
    let context: RunContext | undefined;
    const data: ReportData = {
      name: pipeline.name,
      steps: [],
      evals: [],
      answers: undefined,
      quarantined: [],
      numQuarantined: 0,
      end: undefined,
      config: {
        model: pipeline.model,
        step: pipeline.step,
        seed: pipeline.seed,
        poolBytes: pipeline.poolBytes,
      },
    };
    return {
      name: 'report',
      start: (started) => void (context = started),
      onEvent: (event) => {
        switch (event.event) {
          case 'step':
            return void data.steps.push(event);
          case 'eval':
            return void data.evals.push(event);
          case 'answers':
            return void (data.answers = event);
          case 'end':
            return void (data.end = event);
          case 'quarantine':
            data.numQuarantined += 1;
            if (data.quarantined.length < SHOWN_ROWS) data.quarantined.push(event);
            return;
          case 'checkpoint':
            return;
          default:
            event satisfies never;
        }
      },
      close: async () => {
        if (!context) return;
        const path = join(context.outDir, file);
        await writeFile(path, renderReport(data));
        context.log(`report ${path}`);
      },
    };
  },
});
