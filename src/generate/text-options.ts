// What text may be asked for, checked at once.

import type { Processor } from '../data/processor.js';
import type { CausalLm } from '../models/gemma3n/causal-lm.js';
import { endTokenIds } from '../models/gemma3n/index.js';
import { decode, z } from '../schema.js';
import { type GenerateOptions, callback, commonShape } from './options.js';

export interface TextOptions extends Omit<GenerateOptions, 'stop' | 'onToken' | 'onEnd'> {
  /** By default those that the model's files name, and the processor's end of a turn. */
  readonly eosTokenIds?: number | readonly number[];
  /** Texts that end a row and are cut off, with what follows. A special token's spelling stands for that token. */
  readonly stopStrings?: string | readonly string[];
  /** Leaves markers such as <end_of_turn> out of the text. Default true. */
  readonly skipSpecialTokens?: boolean;
}

export interface GenerateTextOptions extends TextOptions {
  /** Called with each stretch of text as soon as it is certain: whole characters, and nothing that may still become a
   *  stop string. A row's stretches together are its text. */
  readonly onText?: (text: string, row: number) => void;
}

const stopString = z.string().min(1, 'expected a text that is not empty');

const schema = z.strictObject({
  ...commonShape,
  stopStrings: z.union([stopString, z.array(stopString)]).optional(),
  skipSpecialTokens: z.boolean().optional(),
  onText: callback.optional(),
});

export interface CheckedText {
  readonly options: Omit<GenerateOptions, 'stop' | 'onToken' | 'onEnd'>;
  readonly stopStrings: readonly string[];
  readonly skipSpecialTokens: boolean;
}

/** @throws {ConfigError} every fault, a line each */
export function refuseFaults(given: GenerateTextOptions, where = 'generateText'): void {
  decode(schema, given, where);
}

/** @throws {ConfigError} every fault, a line each */
export function checkTextOptions(
  model: CausalLm,
  { eosTokenIds: ofProcessor, tokenizer }: Pick<Processor, 'eosTokenIds' | 'tokenizer'>,
  given: GenerateTextOptions,
): CheckedText {
  refuseFaults(given);
  const { stopStrings = [], skipSpecialTokens = true, onText: _onText, ...options } = given;
  const { eosTokenIds = [...endTokenIds(model.config), ...ofProcessor] } = options;
  const stops = [stopStrings].flat();
  const specials = stops.filter((stop) => tokenizer.specialTokens.includes(stop));
  const ends = [...[eosTokenIds].flat(), ...specials.map((stop) => tokenizer.idOf(stop)!)];
  return {
    options: { ...options, eosTokenIds: ends },
    stopStrings: stops.filter((stop) => !specials.includes(stop)),
    skipSpecialTokens,
  };
}
