// Muon (Jordan 2024; Liu et al., arXiv 2502.16982) as PyTorch's: the momentum of a matrix made nearly orthogonal by
// Newton-Schulz steps. What is no matrix, and tables of embeddings, learn by AdamW.

import { z } from '../schema.js';
import { op, type Tensor } from '../tensor/index.js';
import { adamwRule, BETA } from './adamw.js';
import { membersOf, namesOf, type Member } from './groups.js';
import { COMMON, Optimizer, type Rule, type Update } from './optimizer.js';
import { optimizerPart } from './part.js';
import { matcher, PATTERNS } from './patterns.js';

const SCHEMA = z.strictObject({
  lr: z.number().positive().default(1e-3),
  momentum: z.number().min(0).lt(1).default(0.95),
  nesterov: z.boolean().default(true),
  numIterations: z.int().min(1).max(99).default(5),
  weightDecay: z.number().min(0).default(0.1),
  /** How the rate depends on a matrix's shape: 'original', sqrt(max(1, rows / columns)), or 'matchRmsAdamW',
   *  0.2 sqrt(max(rows, columns)), with which AdamW's rates suit. */
  adjustLr: z.enum(['original', 'matchRmsAdamW']).default('original'),
  /** What learns by AdamW. Vectors, tensors of more than two dimensions and embeddings always do. */
  adamw: z
    .strictObject({
      /** Further parameters, by pattern. */
      match: PATTERNS.optional(),
      /** Its rate as a multiple of `lr`. */
      lrRatio: z.number().positive().default(1),
      betas: z.tuple([BETA, BETA]).default([0.9, 0.999]),
      eps: z.number().positive().default(1e-8),
    })
    .prefault({}),
  ...COMMON,
});

export type MuonOptions = z.input<typeof SCHEMA>;

/** Tables, whose rows are words: matrices by shape alone. */
const TABLES = ['embed_tokens', 'embed_tokens_per_layer', 'embedding.weight', 'lm_head'];
const [A, B, C] = [3.4445, -4.775, 2.0315];
const EPS = 1e-7;

const lerp = op('aten::lerp.Scalar');
const lerp_ = op('aten::lerp_.Scalar');
const addmm = op('aten::addmm');
const vectorNorm = op('aten::linalg_vector_norm');
const clampMin = op('aten::clamp_min');
const addScaled_ = op('aten::add_.Tensor');

/** Nearly U V^T of the matrix's U S V^T, in bfloat16; its singular values lie between a half and one and a half. */
export function orthogonalised(matrix: Tensor, numIterations: number): Tensor {
  const isTall = matrix.shape[0]! > matrix.shape[1]!;
  let x = matrix.to('bfloat16');
  if (isTall) x = x.transpose(0, 1);
  x = x.div(clampMin(vectorNorm(x, 2), EPS));
  for (let i = 0; i < numIterations; i++) {
    const gram = x.matmul(x.transpose(0, 1));
    x = addmm(x, addmm(gram, gram, gram, B, C), x, A);
  }
  return isTall ? x.transpose(0, 1) : x;
}

function rule(options: z.output<typeof SCHEMA>): Rule {
  const { momentum, nesterov, numIterations, adjustLr } = options;
  const rest = adamwRule(options.adamw);
  const tables = [...TABLES, ...(options.adamw.match ?? [])].map(matcher);
  const isRest = ({ tensor, name }: Member) =>
    tensor.ndim !== 2 || (name !== undefined && tables.some((matches) => matches(name)));
  const ratioOf = ([rows = 1, columns = 1]: readonly number[]) =>
    adjustLr === 'original'
      ? Math.sqrt(Math.max(1, rows / columns))
      : 0.2 * Math.sqrt(Math.max(rows, columns));
  return {
    kind: 'muon',
    slots: (member, dtype) =>
      isRest(member) ? rest.slots(member, dtype) : { momentum: { shape: member.tensor.shape, dtype } },
    apply: (updates, weights) => {
      const others = updates
        .filter(({ member }) => isRest(member))
        .map((update): Update => ({ ...update, lr: update.lr * options.adamw.lrRatio }));
      if (others.length > 0) rest.apply(others, weights);
      for (const update of updates) {
        if (isRest(update.member)) continue;
        const { lr, member, state } = update;
        weights.update(update, (weight, gradient) => {
          const kept = state['momentum']!;
          lerp_(kept, gradient, 1 - momentum);
          const change = orthogonalised(nesterov ? lerp(gradient, kept, momentum) : kept, numIterations);
          weight.mul_(1 - lr * member.weightDecay);
          addScaled_(weight, change, -lr * ratioOf(weight.shape));
        });
      }
    },
  };
}

/** Muon for matrices, AdamW for the rest; see `adamw` for how it is used. */
export const muon = optimizerPart('muon', SCHEMA, (parameters, options) => {
  const all = [...(parameters as Iterable<never>)];
  for (const [i, pattern] of (options.adamw.match ?? []).entries()) {
    namesOf(membersOf(all, options, 'muon'), pattern, `muon: adamw.match.${i}`);
  }
  return new Optimizer(all, options, rule(options));
});
