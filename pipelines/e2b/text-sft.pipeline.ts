// Gemma 3n E2B learns from conversations in text alone, several to a row; its text tower learns whole. The last answers
// of the first 32 are kept for evaluation: free answers are scored by how far they follow their references.

import {
  adamw,
  batch,
  checkpoints,
  cosine,
  encode,
  evaluation,
  gemma3n,
  map,
  metrics,
  pack,
  parquet,
  pipeline,
  repeat,
  report,
  rougeL,
  sft,
  skip,
  take,
} from 'sluice';
import { MESSAGES_COLUMNS, type MessagesRow, conversation } from '../layouts.js';
import { published } from '../published.js';

const rows = parquet<MessagesRow>('hf://datasets/trl-lib/Capybara@~parquet/default/train/0000.parquet', {
  columns: MESSAGES_COLUMNS,
  shuffle: { seed: 1 },
});

export default pipeline({
  name: 'e2b-text-sft',
  seed: 1,
  model: gemma3n('google/gemma-3n-E2B-it', { ...published, freeze: ['vision', 'audio', 'embeddings'] }),
  source: repeat(skip(rows, 32), 2),
  flow: [map(conversation), encode({ maxTokens: 2048 }), pack({ tokens: 2048 })],
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
      flow: [map(conversation), encode(), batch({ size: 4 })],
      scores: [rougeL()],
      maxNewTokens: 256,
    }),
    report(),
  ],
});
