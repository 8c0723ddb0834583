// What an adapter is declared by: LoRA (arXiv:2106.09685), with rank-stabilised scaling (arXiv:2312.03732), weight-decomposed
// as DoRA (arXiv:2402.09353), initialised from the principal parts of the weights as PiSSA (arXiv:2404.02948).

import { definePart, type Part } from '../parts.js';
import { decode, z } from '../schema.js';
import { isExpression } from './patterns.js';

/** A glob, or a RegExp, over module names. Regular expressions become '/source/flags', so that a config can be printed and
 *  sent to another thread; such a text is taken for one. */
const pattern = z
  .union([z.string().min(1), z.instanceof(RegExp)])
  .transform((given) => (given instanceof RegExp ? String(given) : given))
  .refine((text) => !text.startsWith('/') || isExpression(text), 'expected a glob or a regular expression');
const patterns = z
  .union([pattern, z.array(pattern).min(1)])
  .transform((given): readonly string[] => [given].flat());

const schema = z.strictObject({
  /** Rank of the update, at most the smaller side of each matrix. */
  rank: z.int().positive(),
  /** The update is scaled by alpha / rank; by default by 1. */
  alpha: z.number().positive().optional(),
  /** Of the adapter's input, in training. */
  dropout: z.number().min(0).lt(1).default(0),
  /** Scales by alpha / sqrt(rank) instead, so that larger ranks learn as fast. */
  rsLora: z.boolean().default(false),
  /** Which linear modules: globs or regular expressions over module names, such as 'q_proj', '*.layers.1*.mlp', or a part:
   *  'text', 'audio', 'vision', 'projector'. By default 'text': q, k, v, o, gate, up and down of its layers. */
  targets: patterns.optional(),
  /** Other ranks, by pattern; two for one module are refused. */
  rankPattern: z.record(z.string().min(1), z.int().positive()).default({}),
  /** Other alphas, by pattern. */
  alphaPattern: z.record(z.string().min(1), z.number().positive()).default({}),
  /** Modules that learn whole, as copies beside the frozen ones, and are saved with the adapter. */
  modulesToSave: patterns.optional(),
  /** 'kaiming' and 'gaussian' draw A and leave B zero; 'pissa' begins with the largest singular parts of the weight, while
   *  the rest stays frozen. */
  init: z.enum(['kaiming', 'gaussian', 'pissa']).default('kaiming'),
});

export type LoraOptions = z.input<typeof schema>;

/** A checked declaration: plain values. */
export type AdapterConfig = z.output<typeof schema> & { readonly kind: 'lora' | 'dora' };

/** What `lora` and `dora` return. */
export type AdapterPart = Part<'adapter'> & LoraOptions;

const loraPart = definePart({ role: 'adapter', kind: 'lora', schema, create: (options) => options });
const doraPart = definePart({ role: 'adapter', kind: 'dora', schema, create: (options) => options });

/** Low-rank adapters: y = W x + alpha / rank B A dropout(x), W frozen.
 *
 *      applyAdapter(model, lora({ rank: 16, alpha: 32 }))
 *      gemma3n('google/gemma-3n-E2B-it', { adapter: lora({ rank: 16, alpha: 32, targets: ['text', /embed_vision/] }) })
 *
 *  LoRA+ (arXiv:2402.12354) is a group of the optimizer: adamw({ lr, groups: [{ match: '*.lora_B.*', lrRatio: 16 }] }).
 *  PEFT's gives DoRA's magnitudes that rate too: match: /\.lora_(B|magnitude_vector)\./ */
export function lora(options: LoraOptions): AdapterPart {
  return loraPart(options);
}

/** LoRA of a weight's direction, with a magnitude for each output that learns beside it:
 *  y = m / ||W + s B A|| (W + s B A) x, the norm by rows and taken for a constant by the gradient. */
export function dora(options: LoraOptions): AdapterPart {
  return doraPart(options);
}

/** @throws {ConfigError} naming every faulty option */
export function decodeAdapter({ kind, ...options }: AdapterPart): AdapterConfig {
  const known = z.enum(['lora', 'dora']);
  return { ...decode(schema, options, kind), kind: decode(known, kind, 'adapter: kind') };
}

/** By what B A x is multiplied. */
export function scalingOf(alpha: number, rank: number, rsLora: boolean): number {
  return alpha / (rsLora ? Math.sqrt(rank) : rank);
}
