// Teaches the small base to answer questions about pictures that it has never seen, in about five minutes on 2 cores.

import {
  adamw,
  batch,
  checkpoints,
  cosine,
  decodeMedia,
  encode,
  evaluation,
  exactMatch,
  gemma3n,
  metrics,
  parquet,
  pipeline,
  promptAlone,
  report,
  sft,
} from 'sluice';
import { type EasyVqaRow, questions } from './easy-vqa.js';

export default pipeline({
  name: 'sft',
  seed: 1,
  model: gemma3n('fixtures/tiny-gemma3n', { freeze: ['vision', 'audio'] }),
  source: parquet('fixtures/easy-vqa/train.parquet', {
    shuffle: { seed: 1 },
    epochs: 3,
    explode: (row: EasyVqaRow) => questions(row),
  }),
  flow: [decodeMedia({ concurrency: 4 }), encode(), batch({ size: 32 })],
  step: sft({
    optimizer: adamw({ lr: 1e-3, betas: [0.9, 0.98] }),
    schedule: cosine({ warmup: 30, minLrRate: 0.05 }),
    clipNorm: 1,
    maxSteps: 900,
  }),
  sinks: [
    metrics(),
    checkpoints({ every: 300, keep: 2 }),
    evaluation({
      every: 150,
      source: parquet('fixtures/easy-vqa/test.parquet', {
        shuffle: { seed: 1 },
        explode: (row: EasyVqaRow) => questions(row),
      }),
      scores: [exactMatch({ by: 'kind' }), promptAlone()],
      maxNewTokens: 4,
      limit: 2000,
      limitOnTheWay: 300,
    }),
    report(),
  ],
});
