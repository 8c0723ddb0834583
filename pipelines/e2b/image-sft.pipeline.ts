// Gemma 3n E2B learns to answer questions about pictures, by full fine-tuning of its text tower: 2 billion weights with
// float32 masters, some 35 GB. On a GPU: `--set model.device=cuda`. The first 32 rows are kept for evaluation.

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
  map,
  metrics,
  parquet,
  pipeline,
  promptAlone,
  repeat,
  report,
  sft,
  skip,
  take,
} from 'sluice';
import { CAULDRON_COLUMNS, type CauldronRow, cauldronConversation, cauldronQuestions } from '../layouts.js';
import { published } from '../published.js';

const rows = parquet<CauldronRow>(
  'hf://datasets/HuggingFaceM4/the_cauldron@~parquet/ai2d/train/0000.parquet',
  {
    columns: CAULDRON_COLUMNS,
    shuffle: { seed: 1 },
  },
);

export default pipeline({
  name: 'e2b-image-sft',
  seed: 1,
  model: gemma3n('google/gemma-3n-E2B-it', { ...published, freeze: ['vision', 'audio', 'embeddings'] }),
  source: repeat(skip(rows, 32), 3),
  flow: [
    map(cauldronConversation),
    decodeMedia(),
    encode({ maxTokens: 2048 }),
    batch({ tokens: 2048, images: 4 }),
  ],
  step: sft({
    optimizer: adamw({ lr: 1e-5, weightDecay: 0 }),
    schedule: cosine({ warmup: 0.03, minLrRate: 0.1 }),
    clipNorm: 1,
    maxSteps: 500,
    accumulate: 8,
    checkpointing: true,
  }),
  sinks: [
    metrics(),
    checkpoints({ every: 100, keep: 2 }),
    evaluation({
      every: 100,
      source: take(rows, 32),
      flow: [flatMap(cauldronQuestions), decodeMedia(), encode(), batch({ size: 4 })],
      scores: [exactMatch(), promptAlone()],
      maxNewTokens: 16,
      limit: 128,
    }),
    report(),
  ],
});
