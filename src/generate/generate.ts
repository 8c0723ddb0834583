// Token by token with cached keys and values. Prompts of several lengths are padded on the left; every row then gives
// what it gives alone.

import type { CausalLm, ModelInputs } from '../models/gemma3n/causal-lm.js';
import { endTokenIds } from '../models/gemma3n/index.js';
import { KvCache } from '../models/gemma3n/kv-cache.js';
import type { Module } from '../nn/index.js';
import { noGrad, scope, tensor } from '../tensor/index.js';
import { type EndReason, type GenerateOptions, checkOptions } from './options.js';
import { type Prompt, promptOf, roomAfter } from './prompt.js';
import { type Chooser, chooser } from './sample.js';
import type { Session } from './session.js';

/** New tokens of each row, the one that ends it included; prompts are left out. The model's tensors stay as they are,
 *  and it computes as after `eval()`.
 *  @param inputs as `model.forward` takes them; an attention mask marks padding, which must be on the left
 *  @throws {ConfigError} for an option out of range
 *  @throws {ModelError} for inputs that do not fit, a prompt that fills the context, or logits that are no numbers
 *  @throws the signal's reason
 *  @example const [ids] = await generate(model, { inputIds }, { maxNewTokens: 32 }); */
export async function generate(
  model: CausalLm,
  inputs: ModelInputs,
  options: GenerateOptions,
): Promise<number[][]> {
  const { onToken, onEnd } = checkOptions(options);
  const rows: number[][] = [];
  for await (const { row, id, ended } of newTokens(model, inputs, options)) {
    const ids = (rows[row] ??= []);
    if (id !== undefined) {
      ids.push(id);
      onToken?.(id, row);
    }
    if (ended) onEnd?.(ended, row);
  }
  return rows;
}

/** One row's next token; whether it ends the row, and why. Without an id, a row that ends without one more. */
export interface NewToken {
  readonly row: number;
  readonly id?: number;
  readonly ended?: EndReason;
}

/** As `generate`, a token at a time, as the consumer asks for them; `onToken` and `onEnd` are left to it. When it stops
 *  asking, or the iteration fails, everything is freed.
 *  @param session of a single row: keys and values stay in it, and `inputs` follow what it holds already */
export async function* newTokens(
  model: CausalLm,
  inputs: ModelInputs,
  options: GenerateOptions,
  session?: Session,
): AsyncGenerator<NewToken, void, void> {
  const { maxNewTokens, eosTokenIds = endTokenIds(model.config), stop, signal } = checkOptions(options);
  const { text } = model.config;
  const ends = new Set([eosTokenIds].flat());
  const prompt = promptOf(inputs);
  const rows: number[][] = Array.from({ length: prompt.batch }, () => []);
  if (maxNewTokens === 0) {
    for (const row of rows.keys()) yield { row, ended: 'length' };
    return;
  }
  const before = session?.ids ?? [];
  const limits = roomAfter(prompt, text.maxPositionEmbeddings, before.length).map((room) =>
    Math.min(room, maxNewTokens),
  );
  const training = Array.from(model.namedModules(), ([, module]) => module).filter(
    (module) => module.training,
  );

  const length = prompt.length + Math.max(...limits);
  using own = session ? undefined : new KvCache(text, length);
  const cache = session?.cache(text, length) ?? own!;
  using choose = chooser(options, { rows: rows.length, vocab: text.vocabSize, device: prompt.device });
  const promptIds = prompt.ids();
  choose.saw(promptIds.map((ids) => [...before, ...ids]));

  const open = new Set(rows.keys());
  let last: number[] | undefined;
  for (let count = 0; open.size > 0; count++) {
    if (last) await new Promise(setImmediate); // others' turn: signals, timers, output
    if (signal?.aborted) {
      for (const row of open) yield { row, ended: 'cancelled' };
      throw signal.reason;
    }
    const next = last ? nextInputs(prompt, last, count) : prompt.inputs;
    const forward = () => inferring(training, () => step(model, next, cache, choose));
    const chosen = session ? session.reading(last ?? idsOf(promptIds), forward) : forward();
    const ids = chosen.map((id, row) => (open.has(row) ? id : (text.padTokenId ?? 0)));
    choose.saw(ids.map((id) => [id]));
    for (const row of [...open]) {
      const [id, made] = [ids[row]!, rows[row]!];
      made.push(id);
      const full = made.length === limits[row] ? 'length' : undefined;
      const stopped = stop?.(made, row) ?? false;
      const ended = stopped || ends.has(id) ? 'stop' : full;
      if (ended) open.delete(row);
      yield { row, id, ...(ended && { ended }) };
    }
    last = ids;
  }
}

/** Of a prompt of one row, without padding. */
function idsOf([ids = []]: readonly (readonly (number | undefined)[])[]): number[] {
  return ids.filter((id) => id !== undefined);
}

/** One forward, and each row's next id. */
function step(model: CausalLm, inputs: () => ModelInputs, cache: KvCache, choose: Chooser): number[] {
  return noGrad(() =>
    scope(() => {
      const hidden = model.hiddenStates(inputs(), cache, { lastOnly: true });
      return choose.next(model.logits(hidden.select(1, 0)));
    }),
  );
}

/** The `count`th new token of each row, at the position after the one before. */
function nextInputs(prompt: Prompt, ids: readonly number[], count: number): () => ModelInputs {
  const column = (values: readonly number[]) =>
    tensor(BigInt64Array.from(values, BigInt), [values.length, 1], 'int64', prompt.device);
  const { nextPositions } = prompt;
  return () => ({
    inputIds: column(ids),
    ...(nextPositions && { positionIds: column(nextPositions.map((position) => position + count - 1)) }),
  });
}

/** Runs `fn` with these modules in inference behaviour, and restores what was. */
function inferring<T>(training: readonly Module[], fn: () => T): T {
  for (const module of training) module.training = false;
  try {
    return fn();
  } finally {
    for (const module of training) module.training = true;
  }
}
