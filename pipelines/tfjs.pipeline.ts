// A small TensorFlow.js network learns to name the colour of a shape, in the same flow with the same sinks, in about a minute.
// It needs one of @tensorflow/tfjs-node-gpu, @tensorflow/tfjs-node and @tensorflow/tfjs.

import {
  adamw,
  arrays,
  checkpoints,
  cosine,
  decodeMedia,
  evaluation,
  exactMatch,
  filter,
  labelledImages,
  metrics,
  parquet,
  pipeline,
  promptAlone,
  report,
  sft,
  tfjsLearner,
  type Sample,
} from 'sluice';
import { type EasyVqaRow, questions } from './easy-vqa.js';

const classes = ['black', 'blue', 'brown', 'gray', 'green', 'red', 'teal', 'yellow'];
const size = 16;
const explode = (row: EasyVqaRow) => questions(row);
const colours = filter(({ tags }: Sample) => tags?.['kind'] === 'colour');

export default pipeline({
  name: 'tfjs',
  seed: 1,
  model: tfjsLearner(
    ({ layers, sequential }) =>
      sequential({
        layers: [
          layers.conv2d({
            inputShape: [size, size, 3],
            filters: 8,
            kernelSize: 3,
            strides: 2,
            activation: 'relu',
          }),
          layers.globalMaxPooling2d({}),
          layers.dense({ units: 32, activation: 'relu' }),
          layers.dense({ units: classes.length }),
        ],
      }),
    { classes },
  ),
  source: parquet('fixtures/easy-vqa/train.parquet', { shuffle: { seed: 1 }, epochs: 4, explode }),
  flow: [colours, decodeMedia(), labelledImages({ size, classes }), arrays({ size: 32 })],
  step: sft({
    optimizer: adamw({ lr: 1e-2 }),
    schedule: cosine({ warmup: 10 }),
    clipNorm: 1,
    maxSteps: 300,
  }),
  sinks: [
    metrics(),
    checkpoints({ every: 100, keep: 2 }),
    evaluation({
      every: 100,
      source: parquet('fixtures/easy-vqa/test.parquet', { explode }),
      scores: [exactMatch(), promptAlone()],
      limitOnTheWay: 256,
    }),
    report(),
  ],
});
