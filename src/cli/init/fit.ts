// Which way to fine-tune a model fits into a memory: the first, from the one that learns most, by `pipe inspect`'s prediction.

import { CheckpointError, ConfigError, HubError } from '../../errors.js';
import { type Method, publishedConfig, recipePredictor } from '../../models/gemma3n/index.js';
import { size } from '../inspection.js';
import type { Task } from './layout.js';

/** What a recipe is written with. */
export interface Fit {
  readonly method: Method;
  readonly rank: number;
  /** Of a micro-batch, padding included. */
  readonly tokens: number;
  readonly images: number;
  readonly clips: number;
  readonly accumulate: number;
  readonly checkpointing: boolean;
  readonly dtype: 'bfloat16' | 'float32';
  readonly lr: number;
  readonly freeze: readonly string[];
  /** Predicted, bytes. */
  readonly peak: number;
  /** Why it is this one. */
  readonly reasons: readonly string[];
}

export interface FitOptions {
  readonly model: string;
  readonly task: Task;
  /** Undefined is whichever fits. */
  readonly method: Method | undefined;
  readonly memoryBytes: number;
  readonly rank: number | undefined;
  readonly signal?: AbortSignal;
}

/** From what learns most to what needs least. */
const METHODS: readonly Method[] = ['full', 'lora', 'qlora'];
/** Of a micro-batch: below the least, a picture with its question has no room. */
const TOKENS = [4096, 2048, 1024, 512];
/** Of a step, over its micro-batches. */
const STEP_TOKENS = 16_384;
const RANKS = [16, 8];
/** Of a picture and of a clip with their words: how many go into a micro-batch. */
const SAMPLE_TOKENS = { images: 512, clips: 256 };
/** Left for the engine and what predictions miss. */
const HEADROOM = 0.9;
/** Of full fine-tuning: what was learnt from far more data than anybody brings. */
const FROZEN = ['vision', 'audio', 'embeddings'] as const;
const RATES = { full: 1e-5, lora: 2e-4, dora: 2e-4, qlora: 2e-4 } as const;

/** A memory of less is a number that lacks its unit. */
const LEAST_BYTES = 1e6;

/** @throws {ConfigError} when nothing fits, with the least that would, and for a rank larger than a matrix */
export async function fit(options: FitOptions): Promise<Fit> {
  const { method, memoryBytes, rank, task } = options;
  const limit = HEADROOM * memoryBytes;
  // Who names a rank wants an adapter.
  const methods = method ? [method] : METHODS.filter((one) => one !== 'full' || rank === undefined);
  const { dtype, mostRank, peakOf } = await predictorOf(options);
  if (rank !== undefined && rank > mostRank) throw largeRank(options.model, rank, mostRank);
  /** Of each method, what needs least. */
  const least = new Map<Method, Fit>();
  for (const one of methods) {
    const ranks = one === 'full' ? [RANKS[0]!] : ranksOf(rank, mostRank);
    for (const tokens of TOKENS) {
      for (const checkpointing of [false, true]) {
        for (const each of ranks) {
          const images =
            task === 'image' || task === 'mixed' ? Math.max(1, tokens / SAMPLE_TOKENS.images) : 0;
          const clips = task === 'audio' || task === 'mixed' ? Math.max(1, tokens / SAMPLE_TOKENS.clips) : 0;
          const load = { batch: 1, length: tokens, images, clips, rank: each, freeze: FROZEN };
          const peak = peakOf({ ...load, method: one, checkpointing, mapped: true });
          const found: Fit = {
            ...{ method: one, rank: each, tokens, images, clips, checkpointing, peak },
            dtype: dtype === 'float32' ? 'float32' : 'bfloat16',
            accumulate: STEP_TOKENS / tokens,
            lr: RATES[one],
            freeze: one === 'full' ? FROZEN : [],
            reasons: [],
          };
          if (peak <= limit) return { ...found, reasons: reasonsOf(found, least, options) };
          if (peak < (least.get(one)?.peak ?? Infinity)) least.set(one, found);
        }
      }
    }
  }
  const [smallest] = [...least.values()].sort((a, b) => a.peak - b.peak);
  throw new ConfigError({
    where: '--memory',
    expected: `at least ${size(Math.ceil(smallest!.peak / HEADROOM))}, for ${named(smallest!.method)} of ${options.model} with ${smallest!.tokens} tokens at a time`,
    received: size(memoryBytes),
    remedy:
      method && method !== 'qlora'
        ? 'give more, a smaller model, or --method qlora'
        : 'give more, or a smaller model',
  });
}

/** The given one, else those that the smallest matrix holds. */
function ranksOf(rank: number | undefined, most: number): readonly number[] {
  if (rank !== undefined) return [rank];
  const fitting = RANKS.filter((one) => one <= most);
  return fitting.length > 0 ? fitting : [most];
}

function largeRank(model: string, rank: number, most: number): ConfigError {
  return new ConfigError({
    where: '--rank',
    expected: `at most ${most}, the shorter side of the smallest matrix of ${model} that takes an adapter`,
    received: String(rank),
    remedy: `write for example --rank ${Math.min(16, most)}`,
  });
}

export function named(method: Method): string {
  return method === 'full' ? 'full fine-tuning' : { lora: 'LoRA', dora: 'DoRA', qlora: 'QLoRA' }[method];
}

function reasonsOf(found: Fit, least: ReadonlyMap<Method, Fit>, { memoryBytes }: FitOptions): string[] {
  const { peak, tokens, checkpointing, accumulate } = found;
  return [
    `${named(found.method)} with ${tokens} tokens at a time needs about ${size(peak)} of ${size(memoryBytes)}`,
    ...[...least.values()]
      .filter(({ method }) => method !== found.method)
      .map(({ method, peak: needed }) => `${named(method)} would need ${size(needed)} at least`),
    ...(checkpointing
      ? ['layers are computed again in the backward pass, which saves what they would keep']
      : []),
    ...(accumulate > 1 ? [`${accumulate} such batches make a step`] : []),
  ];
}

/** Of Google's models without asking the Hub. */
async function predictorOf({ model, signal }: FitOptions): ReturnType<typeof recipePredictor> {
  try {
    return await recipePredictor(publishedConfig(model) ?? model, { signal });
  } catch (error) {
    if (!(error instanceof HubError || error instanceof CheckpointError)) throw error;
    throw new ConfigError(`--model: ${error.message}`, { cause: error });
  }
}

/** '24GiB', '16 GB', '512MB' or bytes. @throws {ConfigError} for another text */
export function bytesOf(text: string): number {
  const [, number = '', unit = ''] = /^\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)?\s*$/i.exec(text) ?? [];
  const power = 'kmgt'.indexOf(unit.charAt(0).toLowerCase()) + 1;
  const bytes =
    Number(number) *
    (/i/i.test(unit) ? 1024 : 1000) ** (unit.toUpperCase() === 'B' || unit === '' ? 0 : power);
  if (number !== '' && bytes >= LEAST_BYTES) return Math.round(bytes);
  throw new ConfigError({
    where: '--memory',
    expected: "the device's memory, such as 24GiB",
    received: text,
    remedy: 'write a number and GiB or GB',
  });
}
