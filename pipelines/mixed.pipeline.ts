// One model learns from pictures, sound and text in one run: to answer questions about pictures, to write down spoken
// digits, and to write numbers in words and digits. Each kind is evaluated on its own.

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
  map,
  metrics,
  mix,
  parquet,
  pipeline,
  promptAlone,
  promptAloneWords,
  report,
  sft,
  wordErrorRate,
} from 'sluice';
import { digitWords } from './digit-words.js';
import { type EasyVqaRow, questions } from './easy-vqa.js';
import {
  SPOKEN_DIGITS_COLUMNS,
  type SpokenDigitsRow,
  atItsSpeed,
  transcript,
  transcriptsAtSpeeds,
} from './spoken-digits.js';

const toBatches = [decodeMedia(), encode(), batch({ size: 40 })];

export default pipeline({
  name: 'mixed',
  seed: 1,
  model: gemma3n('fixtures/tiny-gemma3n', { freeze: ['vision'] }),
  source: mix(
    [
      {
        weight: 2,
        source: parquet('fixtures/easy-vqa/train.parquet', {
          shuffle: { seed: 1 },
          explode: (row: EasyVqaRow) => questions(row),
        }),
      },
      {
        weight: 5,
        source: parquet('fixtures/spoken-digits/train.parquet', {
          columns: SPOKEN_DIGITS_COLUMNS,
          shuffle: { seed: 2 },
          epochs: Infinity,
          explode: transcriptsAtSpeeds,
        }),
      },
      {
        weight: 1,
        source: parquet('fixtures/spoken-digits/train.parquet', {
          columns: { text: 'string' },
          shuffle: { seed: 3 },
          epochs: Infinity,
          explode: digitWords,
        }),
      },
    ],
    { stop: 'first', seed: 1 },
  ),
  flow: [decodeMedia(), map(atItsSpeed), encode(), batch({ size: 32 })],
  step: sft({
    optimizer: adamw({ lr: 1.5e-3, betas: [0.9, 0.98] }),
    schedule: cosine({ warmup: 30, minLrRate: 0.05 }),
    clipNorm: 1,
    maxSteps: 1500,
  }),
  sinks: [
    metrics(),
    checkpoints({ every: 500, keep: 2 }),
    evaluation({
      name: 'pictures',
      every: 500,
      source: parquet('fixtures/easy-vqa/test.parquet', {
        shuffle: { seed: 1 },
        explode: (row: EasyVqaRow) => questions(row),
      }),
      flow: toBatches,
      scores: [exactMatch({ by: 'kind' }), promptAlone()],
      maxNewTokens: 4,
      limit: 1000,
      limitOnTheWay: 200,
    }),
    evaluation({
      name: 'speech',
      every: 500,
      source: parquet('fixtures/spoken-digits/test.parquet', {
        columns: SPOKEN_DIGITS_COLUMNS,
        explode: (row: SpokenDigitsRow) => [transcript(row)],
      }),
      flow: toBatches,
      scores: [wordErrorRate({ by: 'voice' }), promptAloneWords()],
      maxNewTokens: 20,
      limitOnTheWay: 120,
    }),
    evaluation({
      name: 'numbers',
      every: 500,
      source: parquet('fixtures/spoken-digits/test.parquet', {
        columns: { text: 'string' },
        explode: digitWords,
      }),
      flow: toBatches,
      scores: [exactMatch({ by: 'task' })],
      maxNewTokens: 20,
      limitOnTheWay: 120,
    }),
    report(),
  ],
  poolBytes: 32 * 2 ** 20,
});
