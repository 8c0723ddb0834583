// What test/reference/optim.py recorded.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

interface Reference {
  readonly shapes: number[][];
  readonly adamw: {
    readonly options: { lr: number; betas?: number[]; eps?: number; weight_decay?: number };
    readonly start: number[][];
    /** Every third step: the elements of each tensor. */
    readonly after: number[][][];
  }[];
  readonly clip: { max: number; gradients: number[][]; norm: number; clipped: number[][] }[];
  readonly schedules: {
    kind: 'constant' | 'linear' | 'cosine';
    warmup: number;
    minLrRate?: number;
    factors: number[];
  }[];
  readonly maxSteps: number;
}

export const reference = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../fixtures/reference/optim.json'), 'utf8'),
) as Reference;
