// Makes the base of the other examples, fixtures/tiny-gemma3n: a small Gemma 3n learns from random weights to caption
// the training pictures ("a red triangle"), so that its towers see. Colours come within 300 steps, shapes from step 900
// on, when the rate is low enough for the noise of the colours to fade. Takes about 15 minutes on 2 cores.

import {
  adamw,
  batch,
  checkpoints,
  cosine,
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
import { type EasyVqaRow, captions } from './easy-vqa.js';

export default pipeline({
  name: 'pretrain-tiny',
  seed: 1,
  model: gemma3n('fixtures/tiny-gemma3n', { weights: 'random', projector: 'whitened' }),
  source: parquet<EasyVqaRow>('fixtures/easy-vqa/train.parquet', { shuffle: { seed: 1 }, epochs: 40 }),
  flow: [flatMap(captions), decodeMedia(), encode(), batch({ size: 32, dropLast: true })],
  step: sft({
    optimizer: adamw({ lr: 1e-3, betas: [0.9, 0.98] }),
    schedule: cosine({ warmup: 30, minLrRate: 0.05 }),
    clipNorm: 1,
    maxSteps: 3000,
  }),
  sinks: [
    metrics(),
    checkpoints({ every: 500, keep: 2 }),
    evaluation({
      every: 300,
      source: parquet<EasyVqaRow>('fixtures/easy-vqa/test.parquet'),
      scores: [exactMatch(), promptAlone()],
      maxNewTokens: 6,
      limitOnTheWay: 300,
    }),
    report(),
  ],
});
