// What `generate` may be asked for, checked at once.

import { ConfigError } from '../errors.js';
import { decode, z } from '../schema.js';

/** Why a row ended: by an end id or `stop`; because `maxNewTokens` or the context was full; by the signal. */
export type EndReason = 'stop' | 'length' | 'cancelled';

/** How the next token is chosen from logits. Filters act in the reference's order: repetition penalty, temperature, top-k,
 *  top-p, min-p. */
export interface SamplingOptions {
  /** Draw tokens by their probability; else the likeliest is taken (greedy), and of the options below the repetition
   *  penalty alone has an effect. By default true where `temperature`, `topK`, `topP` or `minP` is given. */
  readonly doSample?: boolean;
  /** Divides the logits before drawing; below 1 sharpens. Default 1. */
  readonly temperature?: number;
  /** Draw among the likeliest k alone, and what is as likely as the k-th. */
  readonly topK?: number;
  /** Draw among the fewest likeliest whose probabilities reach this sum. */
  readonly topP?: number;
  /** Draw among those at least this share as likely as the likeliest. */
  readonly minP?: number;
  /** Divides positive logits of tokens that the prompt or the answer holds already, and multiplies negative ones; above 1
   *  discourages repetition. Placeholders of media count, padding does not. Default 1. */
  readonly repetitionPenalty?: number;
  /** Of the draws; without one every call draws anew. Each row has a stream of its own: what it draws depends on the seed,
   *  its place in the batch and its logits. A list gives each row its seed: the row then draws as it does alone with
   *  that seed. The engine's generator is not touched. */
  readonly seed?: number | readonly number[];
}

export interface GenerateOptions extends SamplingOptions {
  /** A row also ends where prompt and answer fill the model's context. */
  readonly maxNewTokens: number;
  /** Ids that end a row; by default those of generation_config.json, else the configuration's. */
  readonly eosTokenIds?: number | readonly number[];
  /** Asked after each token of a row, with the row's new ids so far; true ends the row. */
  readonly stop?: (ids: readonly number[], row: number) => boolean;
  /** Called for each new token, row by row within a step. */
  readonly onToken?: (id: number, row: number) => void;
  /** Called once for each row that ends, after its last token. */
  readonly onEnd?: (reason: EndReason, row: number) => void;
  /** Stops between two tokens; `generate` then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

const tokenId = z.int().min(0);
const seed = z.int().min(0);
export const callback = z.custom<(...args: never) => unknown>(
  (value) => typeof value === 'function',
  'a function',
);

/** What `generate` and those that make text with it take alike. */
export const commonShape = {
  maxNewTokens: z.int().min(0),
  doSample: z.boolean().optional(),
  temperature: z
    .number()
    .positive('expected a number above 0 (greedy: leave sampling options out)')
    .optional(),
  topK: z.int().min(1).optional(),
  topP: z.number().positive().max(1).optional(),
  minP: z.number().min(0).max(1).optional(),
  repetitionPenalty: z.number().positive().optional(),
  seed: z.union([seed, z.array(seed)]).optional(),
  eosTokenIds: z.union([tokenId, z.array(tokenId)]).optional(),
  signal: z.instanceof(AbortSignal).optional(),
};

const schema = z.strictObject({
  ...commonShape,
  stop: callback.optional(),
  onToken: callback.optional(),
  onEnd: callback.optional(),
});

/** @throws {ConfigError} every fault, a line each */
export function checkOptions(options: GenerateOptions): GenerateOptions {
  decode(schema, options, 'generate');
  return options;
}

export function samples({ doSample, temperature, topK, topP, minP }: SamplingOptions): boolean {
  return doSample ?? [temperature, topK, topP, minP].some((option) => option !== undefined);
}

/** The seed of each row's stream, and which stream of it. @throws {ConfigError} when a list has not a seed a row */
export function rowSeeds(
  seed: SamplingOptions['seed'] = Math.floor(Math.random() * 2 ** 53),
  rows: number,
): { readonly seed: number; readonly stream: number }[] {
  if (typeof seed === 'number') return Array.from({ length: rows }, (_, stream) => ({ seed, stream }));
  if (seed.length === rows) return seed.map((own) => ({ seed: own, stream: 0 }));
  throw new ConfigError({
    where: 'generate: seed',
    expected: `a seed for each of ${rows} row${rows === 1 ? '' : 's'}, or one number`,
    received: `${seed.length}`,
    remedy: 'give as many as there are prompts',
  });
}
