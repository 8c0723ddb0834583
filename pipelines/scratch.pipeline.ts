// Trains a small Gemma 3n from random weights to name the colours in pictures that it has never seen.

import {
  adamw,
  batch,
  constant,
  decodeMedia,
  encode,
  evaluation,
  exactMatch,
  flatMap,
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
  name: 'scratch',
  seed: 1,
  model: gemma3n('fixtures/tiny-gemma3n', { weights: 'random', projector: 'whitened' }),
  source: parquet<EasyVqaRow>('fixtures/easy-vqa/train.parquet', { shuffle: { seed: 1 }, epochs: 10 }),
  flow: [
    flatMap((row: EasyVqaRow) => questions(row, ['colour'])),
    decodeMedia(),
    encode(),
    batch({ size: 32 }),
  ],
  step: sft({
    optimizer: adamw({ lr: 1.5e-3 }),
    schedule: constant({ warmup: 30 }),
    clipNorm: 1,
    maxSteps: 300,
  }),
  sinks: [
    metrics(),
    evaluation({
      source: parquet<EasyVqaRow>('fixtures/easy-vqa/test.parquet'),
      scores: [exactMatch(), promptAlone()],
      maxNewTokens: 4,
      limit: 500,
    }),
    report(),
  ],
});
