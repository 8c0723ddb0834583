// Token by token with cached keys and values. Prompts of several lengths are padded on the left; every row then gives
// what it gives alone.

import type { CausalLm, ModelInputs } from '../models/gemma3n/causal-lm.js';
import { endTokenIds } from '../models/gemma3n/index.js';
import { KvCache } from '../models/gemma3n/kv-cache.js';
import type { Module } from '../nn/index.js';
import { noGrad, scope, tensor } from '../tensor/index.js';
import { type GenerateOptions, checkOptions } from './options.js';
import { type Prompt, promptOf } from './prompt.js';
import { type Chooser, chooser } from './sample.js';

/** New tokens of each row, the one that ends it included; prompts are left out. The model's tensors stay as they are,
 *  and it computes as after `eval()`.
 *  @param inputs as `model.forward` takes them; an attention mask marks padding, which must be on the left
 *  @throws {ConfigError} for an option out of range, {ModelError} for inputs that do not fit, and the signal's reason
 *  @example const [ids] = await generate(model, { inputIds }, { maxNewTokens: 32 }); */
export async function generate(
  model: CausalLm,
  inputs: ModelInputs,
  options: GenerateOptions,
): Promise<number[][]> {
  const { maxNewTokens, eosTokenIds = endTokenIds(model.config), onToken, signal } = checkOptions(options);
  const ends = new Set([eosTokenIds].flat());
  const padId = model.config.text.padTokenId ?? 0;
  const prompt = promptOf(inputs);
  const choose = chooser(options);

  const rows: number[][] = Array.from({ length: prompt.batch }, () => []);
  const open = new Set(rows.keys());
  using cache = new KvCache(model.config.text, prompt.length + maxNewTokens);
  const training = Array.from(model.namedModules(), ([, module]) => module).filter(
    (module) => module.training,
  );
  let last: number[] | undefined;
  for (let count = 0; count < maxNewTokens && open.size > 0; count++) {
    if (last) await new Promise(setImmediate);
    signal?.throwIfAborted();

    const before = last;
    const ids = inferring(training, () =>
      step(model, before ? nextInputs(prompt, before, count) : prompt.inputs, cache, choose),
    );
    for (const row of open) {
      const id = ids[row] ?? padId;
      rows[row]?.push(id);
      if (ends.has(id)) open.delete(row);
      onToken?.(id, row);
    }
    last = ids.map((id, row) => (open.has(row) ? id : padId));
  }
  return rows;
}

/** One forward, and each row's next id. */
function step(model: CausalLm, inputs: () => ModelInputs, cache: KvCache, choose: Chooser): number[] {
  return noGrad(() =>
    scope(() => {
      const hidden = model.hiddenStates(inputs(), cache);
      const newest = hidden.select(1, (hidden.shape[1] ?? 1) - 1);
      return choose(model.logits(newest));
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
