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
  readonly attentionMask: Tensor | undefined;
  /** int64 [batch or 1, length]. Without an attention mask and a cache, a jump in them starts another sequence. */
  readonly positionIds: Tensor | undefined;
  readonly cache: KvCache | undefined;
}

/** Built once a forward, shared by all layers of a kind. */
export function attentionMasks(config: TextConfig, inputs: MaskInputs): Masks {
  const { batch, length, attentionMask, cache } = inputs;
  checkMask(inputs);
  return scope(() => {
    const isPadded = attentionMask !== undefined && attentionMask.to('bool').all().item() === 0;
    const own = isPadded ? attentionMask.to(inputs.device).to('bool') : undefined;
    const padding = cache ? cache.extendPadding(own, batch, length, inputs.device) : own;
    const packed = attentionMask || cache ? undefined : sameSequence(inputs.positionIds);

    const masks: Partial<Record<LayerType, Tensor | undefined>> = {};
    for (const kind of new Set(config.layerTypes)) {
      const window = kind === 'sliding_attention' ? config.slidingWindow : Infinity;
      masks[kind] = maskOf(inputs, window, cache?.firstKey(kind) ?? 0, padding, packed);
    }
    return masks;
  });
}

function maskOf(
  { length, device, cache }: MaskInputs,
  window: number,
  firstKey: number,
  padding: Tensor | undefined,
  packed: Tensor | undefined,
): Tensor | undefined {
  const seen = cache?.length ?? 0;
  const numKeys = seen + length - firstKey;
  const isPlain = length === 1 || (numKeys === length && length <= window);
  if (isPlain && !padding && !packed) return undefined;

  let mask: Tensor | undefined;
  if (length > 1) {
    mask = causalMask({ start: seen, length }, { start: firstKey, length: numKeys }, window, device);
  }
  for (const other of [padding?.narrow(1, firstKey, numKeys).unsqueeze(1).unsqueeze(1), packed]) {
    if (other) mask = mask ? mask.logicalAnd(other) : other;
  }
  return mask;
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
