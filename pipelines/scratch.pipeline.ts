// Trains a small Gemma 3n from random weights to name the colours in pictures that it has never seen.

import {
  type Sample,
  adamw,
  batch,
  cosine,
  decodeMedia,
  encode,
  evaluation,
  exactMatch,
  filter,
  gemma3n,
  metrics,
  parquet,
  pipeline,
  promptAlone,
  report,
  sft,
} from 'sluice';
import { type EasyVqaRow, questions } from './easy-vqa.js';

const aboutColour = filter((sample: Sample) => sample.tags?.['kind'] === 'colour');

export default pipeline({
  name: 'scratch',
  seed: 1,
  model: gemma3n('fixtures/tiny-gemma3n', { weights: 'random', projector: 'whitened' }),
  source: parquet('fixtures/easy-vqa/train.parquet', {
    shuffle: { seed: 1 },
    epochs: 4,
    explode: (row: EasyVqaRow) => questions(row),
  }),
  flow: [aboutColour, decodeMedia(), encode(), batch({ size: 32 })],
  step: sft({
    optimizer: adamw({ lr: 1.5e-3, betas: [0.9, 0.98] }),
    schedule: cosine({ warmup: 30, minLrRate: 0.05 }),
    clipNorm: 1,
    maxSteps: 450,
  }),
  sinks: [
    metrics(),
    evaluation({
      every: 150,
      source: parquet('fixtures/easy-vqa/test.parquet', { explode: (row: EasyVqaRow) => questions(row) }),
      flow: [aboutColour, decodeMedia(), encode(), batch({ size: 50 })],
      scores: [exactMatch(), promptAlone()],
      maxNewTokens: 4,
      limitOnTheWay: 200,
    }),
    report(),
  ],
});
