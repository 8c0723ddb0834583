// Text alone: the small base learns to write numbers in words and in digits, several samples to a row.

import {
  adamw,
  batch,
  checkpoints,
  cosine,
  encode,
  evaluation,
  exactMatch,
  gemma3n,
  metrics,
  pack,
  parquet,
  pipeline,
  promptAlone,
  report,
  sft,
} from 'sluice';
import { digitWords } from './digit-words.js';

const columns = { text: 'string' };

export default pipeline({
  name: 'text',
  seed: 1,
  model: gemma3n('fixtures/tiny-gemma3n', { freeze: ['vision', 'audio'] }),
  source: parquet('fixtures/spoken-digits/train.parquet', {
    columns,
    shuffle: { seed: 1 },
    epochs: 60,
    explode: digitWords,
  }),
  flow: [encode(), pack({ tokens: 1024 })],
  step: sft({
    optimizer: adamw({ lr: 2e-3, betas: [0.9, 0.98] }),
    schedule: cosine({ warmup: 30, minLrRate: 0.05 }),
    clipNorm: 1,
    maxSteps: 600,
  }),
  sinks: [
    metrics(),
    checkpoints({ every: 200, keep: 2 }),
    evaluation({
      every: 200,
      source: parquet('fixtures/spoken-digits/test.parquet', { columns, explode: digitWords }),
      flow: [encode(), batch({ size: 40 })],
      scores: [exactMatch({ by: 'task' }), promptAlone()],
      maxNewTokens: 20,
      limitOnTheWay: 120,
    }),
    report(),
  ],
});
