// Which keys a query sees: causal, within the window on sliding layers, never padding, never another packed sequence.

import { ModelError } from '../../errors.js';
import { causalMask, sequenceLengths, sequenceStarts } from '../../nn/index.js';
import { type Tensor, scope, tensor } from '../../tensor/index.js';
import type { LayerType, TextConfig } from './config.js';
import type { KvCache } from './kv-cache.js';

/** What the queries of a layer see beyond causality and its window. */
export interface Sight {
  /** bool [batch or 1, 1, queries or 1, keys]; undefined where `attend` does the same without one. */
  readonly mask?: Tensor | undefined;
  /** Of packed sequences on a CPU, instead of a mask: int32 [batch or 1, queries], the first key of each one's own. */
  readonly starts?: Tensor | undefined;
}

/** Of each kind of layer. */
export type Masks = Readonly<Partial<Record<LayerType, Sight>>>;

export interface MaskInputs {
  readonly batch: number;
  /** New tokens: the queries. */
  readonly length: number;
  readonly device: string;
  /** bool or int [batch, length]: false or 0 on padding. */
  readonly attentionMask?: Tensor | undefined;
  /** int64 [batch or 1, length]. Without an attention mask and a cache, a jump in them starts another sequence. They are
   *  read on the host. */
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
    const packed = attentionMask || cache ? undefined : packedSequences(inputs.positionIds);
    const starts = packed && device === 'cpu' ? sequenceStarts(packed) : undefined;

    const all: Partial<Record<LayerType, Sight>> = {};
    const last: Partial<Record<LayerType, Sight>> = {};
    for (const kind of new Set(config.layerTypes)) {
      const window = kind === 'sliding_attention' ? config.slidingWindow : Infinity;
      const real = (cache ? cache.realKeys(kind, length) : own)?.unsqueeze(1).unsqueeze(1);
      if (device === 'cpu') {
        all[kind] = { mask: real, starts };
        last[kind] = { mask: packed ? sameSequence(packed, device, 'last') : real };
        continue;
      }
      const same = packed && sameSequence(packed, device, 'all');
      const others = [real, same].filter((mask) => mask !== undefined);
      const span = { start: cache?.firstKey(kind) ?? 0, window, isAlone: others.length === 0 };
      all[kind] = { mask: allOf([causal(inputs, span), ...others]) };
      // The last one sees all keys within its window, which `attend` keeps to.
      last[kind] = { mask: allOf(others.map((mask) => mask.narrow(2, (mask.shape[2] ?? 1) - 1, 1))) };
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

/** The positions of each row, or undefined where every row is one sequence. */
function packedSequences(positionIds: Tensor | undefined): ArrayLike<number | bigint>[] | undefined {
  const [rows = 0, length = 0] = positionIds?.shape ?? [];
  if (!positionIds || length < 2) return undefined;
  const values = positionIds.toTypedArray();
  const positions = Array.from({ length: rows }, (_, row) =>
    values.subarray(row * length, (row + 1) * length),
  );
  return positions.some((row) => sequenceLengths(row).length > 1) ? positions : undefined;
}

/** bool [rows, 1, length or 1, length]: keys of the query's own sequence. @param queries all, or the last alone */
function sameSequence(
  positions: readonly ArrayLike<number | bigint>[],
  device: string,
  queries: 'all' | 'last',
): Tensor {
  const length = positions[0]?.length ?? 0;
  const ids = positions.flatMap((row) =>
    sequenceLengths(row).flatMap((count, sequence) => new Array<number>(count).fill(sequence)),
  );
  const sequence = tensor(Int32Array.from(ids), [positions.length, length], 'int32', device).unsqueeze(1);
  const own = queries === 'last' ? sequence.narrow(2, length - 1, 1) : sequence;
  return own.transpose(1, 2).eq(sequence).unsqueeze(1);
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
