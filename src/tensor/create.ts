// New tensors: from JavaScript data, filled, or random. dtype and device left out come from `withDefaults`.

import { TensorError } from '../errors.js';
import type { AnyTypedArray } from '../native/addon.js';
import { type DType, Tensor, attempt, engine, op } from './tensor.js';

export interface TensorOptions {
  readonly dtype?: DType;
  readonly device?: string;
}

let defaults: Required<TensorOptions> = { dtype: 'float32', device: 'cpu' };

/** Runs `fn` with another dtype and device for the creating functions, as while a model is built. */
export function withDefaults<T>(options: TensorOptions, fn: () => T): T {
  const before = defaults;
  defaults = { ...defaults, ...options };
  try {
    return fn();
  } finally {
    defaults = before;
  }
}

/** The dtype and device that the creating functions use when none is given. */
export function currentDefaults(): Required<TensorOptions> {
  return defaults;
}

/** A tensor with a copy of `data`, row-major.
 *  @param dtype defaults to the typed array's own; to 'float32' for number[], 'int64' for bigint[], 'bool' for boolean[].
 *  @throws {TensorError} when the shape's product is not the number of elements */
export function tensor(
  data: AnyTypedArray | readonly number[] | readonly bigint[] | readonly boolean[] | number,
  shape: readonly number[] = typeof data === 'number' ? [] : [data.length],
  dtype?: DType,
  device = 'cpu',
): Tensor {
  const array = arrayOf(data);
  checkLength(array, shape);
  return fromArray(array, shape, dtype ?? naturalDType(data, array), device, false);
}

/** A tensor that views `data` without copying it, where the dtype allows; the array must not change afterwards.
 *  Its memory stays alive as long as the tensor's storage does. */
export function adoptArray(
  data: AnyTypedArray,
  shape: readonly number[],
  dtype?: DType,
  device = 'cpu',
): Tensor {
  checkLength(data, shape);
  return fromArray(data, shape, dtype ?? naturalDType(data, data), device, true);
}

function fromArray(...given: Parameters<ReturnType<typeof engine>['fromArray']>): Tensor {
  return attempt('tensor', [], () => new Tensor(engine().fromArray(...given)));
}

function checkLength(array: AnyTypedArray, shape: readonly number[]): void {
  const numel = shape.reduce((product, size) => product * size, 1);
  if (numel === array.length) return;
  throw new TensorError({
    where: 'tensor',
    expected: `${numel} elements for shape [${shape.join(', ')}]`,
    received: String(array.length),
    remedy: 'give as many elements as the shape has',
  });
}

function arrayOf(data: Parameters<typeof tensor>[0]): AnyTypedArray {
  if (typeof data === 'number') return Float64Array.of(data);
  if (ArrayBuffer.isView(data)) return data;
  if (data.length > 0 && typeof data[0] === 'bigint') return BigInt64Array.from(data as readonly bigint[]);
  if (data.length > 0 && typeof data[0] === 'boolean') {
    return Uint8Array.from(data as readonly boolean[], Number);
  }
  return Float64Array.from(data as readonly number[]);
}

function naturalDType(data: Parameters<typeof tensor>[0], array: AnyTypedArray): DType {
  if (!ArrayBuffer.isView(data)) {
    if (array instanceof BigInt64Array) return 'int64';
    return array instanceof Uint8Array ? 'bool' : 'float32';
  }
  if (array instanceof Float32Array) return 'float32';
  if (array instanceof Float64Array) return 'float64';
  if (array instanceof Int32Array) return 'int32';
  if (array instanceof BigInt64Array) return 'int64';
  if (array instanceof Int16Array) return 'int16';
  if (array instanceof Int8Array) return 'int8';
  if (array instanceof Uint16Array) return 'bfloat16';
  return 'uint8';
}

const emptyOp = op('aten::empty.memory_format');
const zerosOp = op('aten::zeros');
const onesOp = op('aten::ones');
const fullOp = op('aten::full');
const arangeOp = op('aten::arange.start_step');
const randnOp = op('aten::randn');
const randOp = op('aten::rand');

/** Uninitialised. */
export function empty(shape: readonly number[], options: TensorOptions = {}): Tensor {
  const { dtype, device } = { ...defaults, ...options };
  return emptyOp(shape, dtype, undefined, device);
}
export function zeros(shape: readonly number[], options: TensorOptions = {}): Tensor {
  const { dtype, device } = { ...defaults, ...options };
  return zerosOp(shape, dtype, undefined, device);
}
export function ones(shape: readonly number[], options: TensorOptions = {}): Tensor {
  const { dtype, device } = { ...defaults, ...options };
  return onesOp(shape, dtype, undefined, device);
}
export function full(shape: readonly number[], value: number, options: TensorOptions = {}): Tensor {
  const { dtype, device } = { ...defaults, ...options };
  return fullOp(shape, value, dtype, undefined, device);
}
/** start, start + step, ... below end; int64 unless told otherwise. */
export function arange(start: number, end: number, step = 1, options: TensorOptions = {}): Tensor {
  return arangeOp(start, end, step, options.dtype ?? 'int64', undefined, options.device ?? defaults.device);
}
/** Standard normal. */
export function randn(shape: readonly number[], options: TensorOptions = {}): Tensor {
  const { dtype, device } = { ...defaults, ...options };
  return randnOp(shape, dtype, undefined, device);
}
/** Uniform on [0, 1). */
export function rand(shape: readonly number[], options: TensorOptions = {}): Tensor {
  const { dtype, device } = { ...defaults, ...options };
  return randOp(shape, dtype, undefined, device);
}
