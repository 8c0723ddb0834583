// What the recipes for the published models share.

import { adamw, cosine, sft } from 'sluice';

/** Weights of 16 bits, and frozen embeddings in their file: only a batch's rows travel. */
export const published = { dtype: 'bfloat16', embeddings: 'mapped' } as const;

/** Adapters begin at nothing and take a higher rate than weights do. */
export const adapterStep = sft({
  optimizer: adamw({ lr: 2e-4, weightDecay: 0 }),
  schedule: cosine({ warmup: 0.03 }),
  clipNorm: 1,
  maxSteps: 500,
  accumulate: 8,
  checkpointing: true,
});
