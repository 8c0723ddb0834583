// Functions over tensors that PyTorch keeps in torch and torch.nn.functional.

import { type DType, type Operand, Tensor, engine, op } from './tensor.js';

const linearOp = op('sluice::linear');
const embeddingOp = op('aten::embedding');
const convOp = op('aten::convolution');
const geluOp = op('aten::gelu');
const softmaxOp = op('aten::softmax.int');
const logSoftmaxOp = op('aten::log_softmax.int');
const rmsNormOp = op('sluice::rms_norm');
const attentionOp = op('aten::scaled_dot_product_attention');
const catOp = op('aten::cat');
const stackOp = op('aten::stack');
const whereOp = op('aten::where.self');
const whereScalarOp = op('aten::where.ScalarOther');
const topkOp = op<[Tensor, Tensor]>('aten::topk');
const sortOp = op<[Tensor, Tensor]>('aten::sort');
const maximumOp = op('aten::maximum');
const minimumOp = op('aten::minimum');
const multinomialOp = op('aten::multinomial');
const padOp = op('aten::constant_pad_nd');

/** x W^T + b; of few rows, where nothing learns, by a kernel of our own. @param x [..., in] @param weight [out, in] */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  return linearOp(x, weight, bias);
}

/** Rows of `weight` [words, size] at `ids` (int64 or int32). */
export function embedding(ids: Tensor, weight: Tensor): Tensor {
  return embeddingOp(weight, ids);
}

export interface ConvOptions {
  readonly stride?: number | readonly [number, number];
  readonly padding?: number | readonly [number, number];
  readonly dilation?: number | readonly [number, number];
  readonly groups?: number;
}

/** @param x [batch, in, height, width] @param weight [out, in / groups, kernelHeight, kernelWidth] */
export function conv2d(x: Tensor, weight: Tensor, bias?: Tensor, options: ConvOptions = {}): Tensor {
  const { stride = 1, padding = 0, dilation = 1, groups = 1 } = options;
  return convOp(x, weight, bias ?? null, pair(stride), pair(padding), pair(dilation), false, [0, 0], groups);
}

function pair(value: number | readonly [number, number]): readonly number[] {
  return typeof value === 'number' ? [value, value] : value;
}

export function gelu(x: Tensor, approximate: 'tanh' | 'none' = 'none'): Tensor {
  return geluOp(x, approximate);
}
export function softmax(x: Tensor, dim: number, dtype?: DType): Tensor {
  return softmaxOp(x, dim, dtype);
}
export function logSoftmax(x: Tensor, dim: number, dtype?: DType): Tensor {
  return logSoftmaxOp(x, dim, dtype);
}

/** act(x / sqrt(mean(x^2) + eps) * weight), over the last dim; in float32 inside. Fused on a CPU; derivable once. */
export function rmsNorm(
  x: Tensor,
  weight: Tensor | undefined,
  eps: number,
  act: 'none' | 'gelu_tanh' = 'none',
): Tensor {
  return rmsNormOp(x, weight, eps, act);
}

export interface AttentionOptions {
  /** bool (true takes part) or additive, broadcast to [batch, heads, queries, keys] */
  readonly mask?: Tensor;
  readonly scale?: number;
  readonly isCausal?: boolean;
  /** keys and values have fewer heads, each serving a group of query heads */
  readonly enableGqa?: boolean;
}

/** softmax(q k^T scale + mask) v. Shapes [batch, heads, length, headDim]. */
export function scaledDotProductAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions = {},
): Tensor {
  const { mask, scale, isCausal = false, enableGqa = false } = options;
  return attentionOp(q, k, v, mask, 0, isCausal, scale, enableGqa);
}

export function cat(tensors: readonly Tensor[], dim = 0): Tensor {
  return catOp(tensors, dim);
}
export function stack(tensors: readonly Tensor[], dim = 0): Tensor {
  return stackOp(tensors, dim);
}
/** `a` where the condition holds, `b` elsewhere. */
export function where(condition: Tensor, a: Tensor, b: Operand): Tensor {
  return b instanceof Tensor ? whereOp(condition, a, b) : whereScalarOp(condition, a, b);
}
/** The k largest along `dim`: [values, indices]. */
export function topk(x: Tensor, k: number, dim = -1): [Tensor, Tensor] {
  return topkOp(x, k, dim);
}
/** [values, indices] in order along `dim`. */
export function sort(x: Tensor, dim = -1, descending = false): [Tensor, Tensor] {
  return sortOp(x, dim, descending);
}
export function maximum(a: Tensor, b: Tensor): Tensor {
  return maximumOp(a, b);
}
export function minimum(a: Tensor, b: Tensor): Tensor {
  return minimumOp(a, b);
}
/** Indices drawn by the rows' weights. */
export function multinomial(weights: Tensor, numSamples: number, replacement = false): Tensor {
  return multinomialOp(weights, numSamples, replacement);
}
/** Constant padding; `pad` counts from the last dim backwards, two numbers a dim, as torch.nn.functional.pad. */
export function padConstant(x: Tensor, pad: readonly number[], value = 0): Tensor {
  return padOp(x, pad, value);
}

/** Bytes in use by the process's tensors on a CPU, and the most that they came to since `restart`; without what is
 *  mapped from files. */
export function tensorMemory({ restart = false }: { readonly restart?: boolean } = {}): {
  readonly used: number;
  readonly most: number;
} {
  const [used, most] = engine().tensorMemory(restart);
  return { used, most };
}

/** Whether what is computed now is recorded for gradients. */
export function isGradEnabled(): boolean {
  const isEnabled = engine().setGradEnabled(false);
  engine().setGradEnabled(isEnabled);
  return isEnabled;
}

let fastBfloat16: boolean | undefined;

/** Whether libtorch's products of bfloat16 on this processor are about as fast as those of float32, or faster. */
export function hasFastBfloat16(): boolean {
  return (fastBfloat16 ??= process.arch !== 'x64' || engine().facts().cpuCapability.includes('AVX512'));
}

/** Threads that one operator may use; with a number, sets it. */
export function setNumThreads(threads: number): void {
  engine().numThreads(threads);
}
export function getNumThreads(): number {
  return engine().numThreads();
}
