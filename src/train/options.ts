// The model and step parts of a pipeline: plain options that cross to the device thread as they are.

import type { Origin } from '../hub/index.js';
import { EMBEDDINGS, QUANTISE, RECOMPUTED_PARTS, type BaseModel } from '../models/gemma3n/index.js';
import { definePart, part } from '../parts.js';
import type { AdapterPart } from '../peft/index.js';
import { z } from '../schema.js';
import { CLIP, EMA_OPTIONS, type OptimizerOptions } from '../optim/index.js';
import { scheduleFault, type ScheduleOptions } from '../optim/index.js';

/** Not a union, whose fault would name no path within the adapter. */
const ADAPTER = z.unknown().transform((value, context) => {
  const checked = typeof value === 'string' ? z.string().min(1) : part('adapter');
  const result = checked.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  for (const issue of result.error.issues) context.issues.push({ ...issue, input: issue.input } as never);
  return z.NEVER;
}) as unknown as z.ZodType<AdapterPart | string, AdapterPart | string>;

const MODEL = z.strictObject({
  /** Folder with config.json, weights and processor files, or a repository of the Hub. */
  path: z.string().min(1),
  /** Branch, tag or commit of a repository; a folder has no other. A run that is continued stays with its commit. */
  revision: z.string().min(1).optional(),
  dtype: z.enum(['float32', 'bfloat16']).default('float32'),
  device: z.string().default('cpu'),
  /** Parts or globs of parameters that do not learn. */
  freeze: z.array(z.string().min(1)).default([]),
  /** What learns in place of the weights: `lora({ ... })` or `dora({ ... })`, or an adapter to go on with, a folder in PEFT's
   *  layout or a repository of the Hub. */
  adapter: ADAPTER.optional(),
  /** Frozen weights in few bits beside an adapter (QLoRA, arXiv:2305.14314): 'nf4', 'int8', or { format, embeddings, towers,
   *  doubleQuantise, blockSize }. They are quantised as they are read. false is none, also where the model is an adapter's
   *  folder whose base was quantised. */
  quantise: QUANTISE.optional(),
  /** 'mapped' keeps frozen embeddings in their file in the host's memory, where only a batch's rows are read: the
   *  per-layer ones, and the input's where it can; 'perLayerMapped' the former alone. 'device' by default. */
  embeddings: z.enum(EMBEDDINGS).optional(),
  /** 'random' ignores the folder's weights and draws new ones from the run's seed. */
  weights: z.enum(['pretrained', 'random']).default('pretrained'),
  /** 'whitened' sets the image projector from the first batch's features before the first step. */
  projector: z.enum(['pretrained', 'whitened']).default('pretrained'),
});

export type ModelOptions = Omit<z.output<typeof MODEL>, 'adapter'> & {
  readonly kind: string;
  readonly adapter?: AdapterPart | string | undefined;
  /** What an adapter's files call the model; set by the run. */
  readonly base?: BaseModel;
  /** Where `path` was downloaded from; set by the run. */
  readonly origin?: Origin;
};

const modelPart = definePart({ role: 'model', kind: 'gemma3n', schema: MODEL, create: (options) => options });

/** The model of a job: `gemma3n('fixtures/tiny-gemma3n', { freeze: ['vision'] })`.
 *  @param path a folder in Hugging Face's layout, or a repository of the Hub: 'google/gemma-3n-E2B-it' */
export function gemma3n(path: string, options: Omit<z.input<typeof MODEL>, 'path'> = {}) {
  return modelPart({ path, ...options });
}

const EMA = z.strictObject({
  ...EMA_OPTIONS,
  /** Whether evaluations ask the averages, and not the weights as they are. */
  evaluate: z.boolean().default(true),
  /** Writes a model of the averages into the run's folder as `final` when the run is complete; of an adapter that alone.
   *  Checkpoints hold the weights as they are, and the averages beside them. */
  final: z.boolean().default(false),
});

/** The parts of a model whose layers may be computed again. */
const PARTS = z
  .array(z.enum(RECOMPUTED_PARTS))
  .min(1, 'expected a part or more; leave it out for none')
  .refine((parts) => new Set(parts).size === parts.length, 'expected each part once');

const STEP = z
  .strictObject({
    optimizer: part('optimizer'),
    schedule: part('schedule'),
    /** Largest global gradient norm; larger ones are scaled down to it. */
    clipNorm: z.number().positive().optional(),
    /** Other clipping in its stead: `{ norm }`, the same; `{ perGroup: { pattern: norm } }`, parameters by pattern, each
     *  group by its own norm; `{ adaptive: share }`, each row's gradient to a share of the row's own norm. */
    clip: CLIP.optional(),
    maxSteps: z.int().positive(),
    /** Micro-batches a step; the loss is divided by the step's labels, so the result does not depend on the split. */
    accumulate: z.int().positive().default(1),
    /** Parts whose layers keep their inputs alone, and are computed again in the backward pass: all with true. The result
     *  is the same, for less memory and more time. */
    checkpointing: z.union([z.boolean(), PARTS]).optional(),
    /** Moves what layers keep with `checkpointing` to the host's memory; on a CPU it is there already. */
    offload: z.boolean().optional(),
    /** Updates each layer's parameters within the backward pass and frees their gradients: for full fine-tuning, whose
     *  gradients are as large as the model. Not with what needs all gradients at once. */
    optimizerInBackward: z.boolean().optional(),
    /** An exponential moving average of what learns, which is part of checkpoints: `{ decay, warmup, every }`. */
    ema: EMA.optional(),
  })
  .refine(({ offload, checkpointing = false }) => !offload || checkpointing !== false, {
    message: 'expected checkpointing with it: it moves what layers keep for computing again',
    path: ['offload'],
  })
  .superRefine(({ optimizerInBackward, clipNorm, clip, accumulate }, context) => {
    if (!optimizerInBackward) return;
    const refuse = (key: string, message: string): void =>
      context.addIssue({ code: 'custom', path: [key], message });
    const all =
      'needs the gradients of all parameters at once, and optimizerInBackward frees them layer by layer';
    if (clipNorm !== undefined) refuse('clipNorm', `expected none: it ${all}; leave one of the two out`);
    if (clip && !('adaptive' in clip)) refuse('clip', `expected { adaptive }: another ${all}; leave one out`);
    if (accumulate > 1) {
      refuse(
        'accumulate',
        'expected 1 with optimizerInBackward: the first micro-batch would update the weights already',
      );
    }
  })
  .refine(({ clip, clipNorm }) => clip === undefined || clipNorm === undefined, {
    message: 'expected clip or clipNorm, not both',
    path: ['clip'],
  })
  .superRefine(({ schedule, maxSteps }, context) => {
    const fault = scheduleFault(schedule as unknown as ScheduleOptions, maxSteps);
    if (fault)
      context.addIssue({
        code: 'custom',
        path: ['schedule', fault.key],
        message: fault.message,
        input: fault.value,
      });
  });

export type StepOptions = Omit<z.output<typeof STEP>, 'optimizer' | 'schedule'> & {
  readonly kind: string;
  readonly optimizer: OptimizerOptions;
  readonly schedule: ScheduleOptions & { readonly kind: string };
};

/** Supervised fine-tuning: summed loss over the labelled tokens, divided by their number. */
export const sft = definePart({ role: 'step', kind: 'sft', schema: STEP, create: (options) => options });
