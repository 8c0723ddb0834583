// A small run as the report is given it.

import type { ReportData } from '../../src/report/page.js';
import type { StepEvent } from '../../src/train/events.js';

export function sampleData(numSteps = 200): ReportData {
  const steps = Array.from({ length: numSteps }, (_, i): StepEvent => ({
    event: 'step',
    step: i + 1,
    loss: 4 * Math.exp(-i / 60) + 0.1 * Math.abs(Math.sin(i)),
    numLabels: 640,
    gradNorm: 10 / (1 + i / 10),
    clipped: false,
    skipped: 0,
    lr: 1e-3 * Math.min(1, i / 30),
    tokens: 5000,
    samples: 32,
    images: 32,
    clips: 0,
    stepMs: 400 + (i % 7) * 5,
    waitMs: i % 9,
    waits: { encode: 1 },
  }));
  return {
    name: 'sft',
    steps,
    evals: [50, 100, 150, 200].map((step) => ({
      event: 'eval',
      step,
      name: 'eval',
      count: 1000,
      scores: { exactMatch: 0.6 + step / 600, 'exactMatch:shape': 0.3 + step / 400, promptAlone: 0.67 },
    })),
    warnings: [],
    model: undefined,
    answers: new Map([
      [
        'eval',
        {
          event: 'answers',
          step: 200,
          name: 'eval',
          answers: [
            {
              prompt: 'what colour?',
              reference: 'red',
              answer: 'red',
              picture: 'data:image/png;base64,AAAA',
            },
            { prompt: '<script>alert(1)</script>', reference: 'a"b', answer: '' },
          ],
        },
      ],
    ]),
    quarantined: [
      {
        event: 'quarantine',
        row: 'a.parquet row group 0 row 3',
        stage: 'decodeMedia',
        error: 'truncated <b>',
        stream: 'train',
        item: 3,
        part: 0,
      },
    ],
    numQuarantined: 7,
    end: {
      event: 'end',
      outcome: 'complete',
      ledger: { issued: 107, trained: 100, dropped: 0, quarantined: 7 },
      peakBytes: 12e6,
      peakCheckpointBytes: 0,
      steps: 200,
      waitMs: 800,
      waits: { decodeMedia: 800 },
      slowest: [{ row: 'a.parquet row group 0 row <5>', stage: 'decodeMedia', ms: 30 }],
      tuned: {},
      seconds: 90,
      time: { setup: 2000, compute: 80_000, wait: 800, sinks: 7000, other: 200 },
      feed: { tokensPerSecond: 1000, withoutWaits: 1012 },
    },
    config: { note: '</pre></script>' },
  };
}
