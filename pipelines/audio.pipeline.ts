// Teaches the small base, whose audio tower knows nothing yet, to write down spoken digits; tests it on voices that it
// has never heard. About five minutes on 2 cores.

import {
  adamw,
  batch,
  checkpoints,
  cosine,
  decodeMedia,
  encode,
  evaluation,
  gemma3n,
  map,
  metrics,
  parquet,
  pipeline,
  promptAloneWords,
  report,
  sft,
  wordErrorRate,
} from 'sluice';
import {
  SPOKEN_DIGITS_COLUMNS,
  type SpokenDigitsRow,
  atItsSpeed,
  transcript,
  transcriptsAtSpeeds,
} from './spoken-digits.js';

export default pipeline({
  name: 'audio',
  seed: 1,
  model: gemma3n('fixtures/tiny-gemma3n', { freeze: ['vision'] }),
  source: parquet('fixtures/spoken-digits/train.parquet', {
    columns: SPOKEN_DIGITS_COLUMNS,
    shuffle: { seed: 1 },
    epochs: 5,
    explode: transcriptsAtSpeeds,
  }),
  flow: [decodeMedia(), map(atItsSpeed), encode(), batch({ size: 32 })],
  step: sft({
    optimizer: adamw({ lr: 1.5e-3, betas: [0.9, 0.98] }),
    schedule: cosine({ warmup: 30, minLrRate: 0.05 }),
    clipNorm: 1,
    maxSteps: 1000,
  }),
  sinks: [
    metrics(),
    checkpoints({ every: 250, keep: 2 }),
    evaluation({
      every: 250,
      source: parquet('fixtures/spoken-digits/test.parquet', {
        columns: SPOKEN_DIGITS_COLUMNS,
        explode: (row: SpokenDigitsRow) => [transcript(row)],
      }),
      flow: [decodeMedia(), encode(), batch({ size: 40 })],
      scores: [wordErrorRate({ by: 'voice' }), promptAloneWords()],
      maxNewTokens: 20,
      limitOnTheWay: 120,
    }),
    report(),
  ],
  poolBytes: 32 * 2 ** 20,
});
