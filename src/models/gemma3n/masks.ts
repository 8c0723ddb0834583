// Which keys a query sees: causal, within the window on sliding layers, never padding, never another packed sequence.

import { ModelError } from '../../errors.js';
import { causalMask } from '../../nn/index.js';
import { type Tensor, cat, scope } from '../../tensor/index.js';
import type { LayerType, TextConfig } from './config.js';
import type { KvCache } from './kv-cache.js';

/** bool [batch or 1, 1, queries, keys] for each kind of layer; undefined where plain causal attention is the same. */
export type Masks = Readonly<Partial<Record<LayerType, Tensor | undefined>>>;

export interface MaskInputs {
  readonly batch: number;
  /** New tokens: the queries. */
  readonly length: number;
  readonly device: string;
  /** bool or int [batch, length]: false or 0 on padding. */
  readonly attentionMask?: Tensor | undefined;
  /** int64 [batch or 1, length]. Without an attention mask and a cache, a jump in them starts another sequence. */
  readonly positionIds?: Tensor | undefined;
  readonly cache?: KvCache | undefined;
}

/** Masks of all queries, and those of the last one alone. */
export interface QueryMasks {
  readonly all: Masks;
  readonly last: Masks;
}

/** Built once a forward, shared by all layers of a kind. The cache learns of padding here. */
export function attentionMasks(config: TextConfig, inputs: MaskInputs): QueryMasks {
  const { batch, length, attentionMask, cache, device } = inputs;
  checkMask(inputs);
  return scope(() => {
    const isPadded = attentionMask !== undefined && attentionMask.to('bool').all().item() === 0;
    const own = isPadded ? attentionMask.to(device).to('bool') : undefined;
    cache?.extendPadding(own, batch, length, device);
    const packed = attentionMask || cache ? undefined : sameSequence(inputs.positionIds);

    const all: Partial<Record<LayerType, Tensor | undefined>> = {};
    const last: Partial<Record<LayerType, Tensor | undefined>> = {};
    for (const kind of new Set(config.layerTypes)) {
      const window = kind === 'sliding_attention' ? config.slidingWindow : Infinity;
      const real = cache ? cache.realKeys(kind, length) : own;
      const others = [real?.unsqueeze(1).unsqueeze(1), packed].filter((mask) => mask !== undefined);
      const span = { start: cache?.firstKey(kind) ?? 0, window, isAlone: others.length === 0 };
      all[kind] = allOf([causal(inputs, span), ...others]);
      // The last one sees all keys within its window, which `attend` keeps to.
      last[kind] = allOf(others.map((mask) => mask.narrow(2, (mask.shape[2] ?? 1) - 1, 1)));
    }
    return { all, last };
  });
}

/** @param isAlone whether there is no other mask: `attend` may then do the same without one */
function causal(
  { length, device, cache }: MaskInputs,
  { start, window, isAlone }: { readonly start: number; readonly window: number; readonly isAlone: boolean },
): Tensor | undefined {
  const seen = cache?.length ?? 0;
  const numKeys = seen + length - start;
  if (length === 1 || (isAlone && numKeys === length && length <= window)) return undefined;
  return causalMask({ start: seen, length }, { start, length: numKeys }, window, device);
}

function allOf(masks: readonly (Tensor | undefined)[]): Tensor | undefined {
  const [first, ...rest] = masks.filter((mask) => mask !== undefined);
  return first && rest.reduce((both, mask) => both.logicalAnd(mask), first);
}

/** bool [batch, 1, length, length], or undefined where every row is one sequence. */
function sameSequence(positionIds: Tensor | undefined): Tensor | undefined {
  const length = positionIds?.shape[1] ?? 1;
  if (!positionIds || length < 2) return undefined;
  const steps = positionIds.narrow(1, 1, length - 1).sub(positionIds.narrow(1, 0, length - 1));
  const jumps = steps.ne(1).to('int64');
  if (jumps.any().item() === 0) return undefined;
  const sequence = cat([jumps.narrow(1, 0, 1).mul(0), jumps], 1).cumsum(1);
  return sequence.unsqueeze(2).eq(sequence.unsqueeze(1)).unsqueeze(1);
}

function checkMask({ batch, length, attentionMask }: MaskInputs): void {
  if (!attentionMask) return;
  const { shape } = attentionMask;
  if (shape.length === 2 && shape[0] === batch && shape[1] === length) return;
  throw new ModelError({
    where: 'attentionMask',
    expected: `[${batch}, ${length}], as the tokens`,
    received: `[${shape.join(', ')}]`,
    remedy: 'give 1 for every token and 0 for padding',
  });
}
