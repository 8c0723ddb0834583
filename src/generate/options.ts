// What `generate` may be asked for, checked at once.

import { decode, z } from '../schema.js';

export interface GenerateOptions {
  readonly maxNewTokens: number;
  /** Draw tokens by their probability; else the likeliest is taken (greedy). */
  readonly doSample?: boolean;
  /** Divides the logits before drawing; below 1 sharpens. Default 1. */
  readonly temperature?: number;
  /** Draw among the likeliest k alone. */
  readonly topK?: number;
  /** Draw among the fewest likeliest whose probabilities reach this sum. */
  readonly topP?: number;
  /** Of the draws; without one every call draws anew. The engine's generator is not touched. */
  readonly seed?: number;
  /** Ids that end a row; by default those of generation_config.json, else the configuration's. */
  readonly eosTokenIds?: number | readonly number[];
  /** Called for each new token, row by row within a step. */
  readonly onToken?: (id: number, row: number) => void;
  /** Stops between two tokens; `generate` then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

const tokenId = z.int().min(0);

const schema = z.strictObject({
  maxNewTokens: z.int().min(0),
  doSample: z.boolean().optional(),
  temperature: z.number().positive().optional(),
  topK: z.int().min(1).optional(),
  topP: z.number().positive().max(1).optional(),
  seed: z.int().min(0).optional(),
  eosTokenIds: z.union([tokenId, z.array(tokenId)]).optional(),
  onToken: z
    .custom<GenerateOptions['onToken']>((value) => typeof value === 'function', 'a function')
    .optional(),
  signal: z.instanceof(AbortSignal).optional(),
});

/** @throws {ConfigError} every fault, a line each */
export function checkOptions(options: GenerateOptions): GenerateOptions {
  decode(schema, options, 'generate');
  return options;
}
