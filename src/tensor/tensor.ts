// Tensor: a handle to libtorch's tensor with PyTorch's methods; `op` calls any libtorch operator by name;
// `scope` frees what it does not return. The only door to the engine for everything above.

import { getSystemErrorMap } from 'node:util';
import { TensorError, messageOf } from '../errors.js';
import type { AnyTypedArray, Handle, NativeAddon, ResolvedOp } from '../native/addon.js';
import { loadAddon } from '../native/loader.js';

export const DTYPES = [
  'float32',
  'bfloat16',
  'float16',
  'float64',
  'int64',
  'int32',
  'int16',
  'int8',
  'uint8',
  'bool',
] as const;
export type DType = (typeof DTYPES)[number];

/** A tensor operand: broadcast as PyTorch does. */
export type Operand = Tensor | number;

/** An argument of `op`: undefined takes the schema's default. */
export type OpArgument =
  | Tensor
  | number
  | bigint
  | boolean
  | string
  | null
  | undefined
  | readonly (Tensor | number | boolean | null | undefined)[];

let addon: NativeAddon | undefined;

/** The addon, set up and loaded on first use. */
export function engine(): NativeAddon {
  return (addon ??= loadAddon());
}

// --- lifetimes -------------------------------------------------------------------------------------------------------

const scopes: Tensor[][] = [];

interface Orphan {
  readonly handle: Handle;
  readonly bytes: number;
}

const finalizer = new FinalizationRegistry<Orphan>(({ handle, bytes }) => {
  engine().free(handle);
  engine().adjustMemory(-bytes);
});

/** Runs `fn` and frees every tensor made inside, except those that its result holds (in arrays and plain objects too)
 *  and those passed to `keep`.
 *  @throws {TensorError} when `fn` is asynchronous: a scope is a stretch of synchronous work */
export function scope<T>(fn: () => T): T {
  const frame: Tensor[] = [];
  scopes.push(frame);
  let result: T;
  try {
    result = fn();
  } catch (error) {
    scopes.pop();
    for (const tensor of frame) tensor.dispose();
    throw error;
  }
  scopes.pop();
  if (result instanceof Promise) {
    for (const tensor of frame) tensor.dispose();
    throw new TensorError({
      where: 'scope',
      expected: 'a synchronous function',
      received: 'one that returns a promise',
      remedy: 'put the scope around the synchronous parts',
    });
  }
  const survivors = new Set<Tensor>();
  collect(result, survivors);
  for (const tensor of frame) {
    if (tensor.kept) continue;
    if (survivors.has(tensor)) adopt(tensor);
    else tensor.dispose();
  }
  return result;
}

/** Takes a tensor out of every scope: it lives until `dispose` or the garbage collector. */
export function keep<T extends Tensor>(tensor: T): T {
  return takeOut(tensor);
}

/** As `keep`, for an owner that is sure to dispose of it: the collector need not hurry for its bytes. To be told of many
 *  sets it to work beside the engine's threads. */
export function own<T extends Tensor>(tensor: T): T {
  return takeOut(tensor, 0);
}

/** @param bytes see `watch`; outside of every scope it is watched already */
function takeOut<T extends Tensor>(tensor: T, bytes?: number): T {
  if (!tensor.kept) {
    tensor.kept = true;
    if (scopes.length > 0) watch(tensor, bytes);
  }
  return tensor;
}

/** Runs `fn` without recording for gradients. */
export function noGrad<T>(fn: () => T): T {
  const before = engine().setGradEnabled(false);
  try {
    return fn();
  } finally {
    engine().setGradEnabled(before);
  }
}

/** Runs `fn` recording for gradients, also inside `noGrad`. */
export function enableGrad<T>(fn: () => T): T {
  const before = engine().setGradEnabled(true);
  try {
    return fn();
  } finally {
    engine().setGradEnabled(before);
  }
}

/** Live native tensors of this thread, for leak tests. */
export function liveTensors(): number {
  return engine().liveTensors();
}

function adopt(tensor: Tensor): void {
  const frame = scopes[scopes.length - 1];
  if (frame) frame.push(tensor);
  else watch(tensor);
}

/** Frees the tensor with its object. @param bytes that the collector is told of */
function watch(tensor: Tensor, bytes = engine().numBytes(tensor.handle)): void {
  tensor.watchedBytes = bytes;
  engine().adjustMemory(bytes);
  finalizer.register(tensor, { handle: tensor.handle, bytes: tensor.watchedBytes }, tensor);
}

function collect(value: unknown, into: Set<Tensor>): void {
  if (value instanceof Tensor) into.add(value);
  else if (Array.isArray(value)) for (const element of value) collect(element, into);
  else if (value instanceof Map) for (const element of value.values()) collect(element, into);
  else if (value !== null && typeof value === 'object') {
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype === Object.prototype || prototype === null) {
      for (const element of Object.values(value)) collect(element, into);
    }
  }
}

// --- the tensor ------------------------------------------------------------------------------------------------------

/** An n-dimensional array in libtorch. Methods mean what PyTorch's of the same name mean; those that end in `_` write
 *  in place and return `this`. */
export class Tensor {
  /** For `src/tensor` and the floors that may talk to the engine; -1 once disposed. */
  handle: Handle;
  /** @internal */
  kept = false;
  /** @internal */
  watchedBytes = -1;
  #shape: readonly number[] | undefined;
  #dtype: DType | undefined;

  /** @internal Wraps a handle and takes ownership of it; use `tensor`, `zeros` and the like. */
  constructor(handle: Handle) {
    this.handle = handle;
    adopt(this);
  }

  get shape(): readonly number[] {
    return (this.#shape ??= Object.freeze(engine().sizes(this.live())));
  }
  get dtype(): DType {
    return (this.#dtype ??= engine().dtype(this.live()) as DType);
  }
  /** 'cpu', 'cuda:0' */
  get device(): string {
    return engine().device(this.live());
  }
  get ndim(): number {
    return this.shape.length;
  }
  get numel(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }
  get numBytes(): number {
    return engine().numBytes(this.live());
  }
  get requiresGrad(): boolean {
    return engine().requiresGrad(this.live());
  }
  set requiresGrad(value: boolean) {
    engine().requiresGrad(this.live(), value);
  }
  /** The accumulated gradient (a new handle at each call), or null. */
  get grad(): Tensor | null {
    const handle = engine().grad(this.live());
    return handle > 0 ? new Tensor(handle) : null;
  }
  set grad(value: Tensor | null) {
    engine().setGrad(this.live(), value ? value.live() : 0);
  }
  get disposed(): boolean {
    return this.handle < 0;
  }

  /** @internal The handle, or an error when this tensor was freed. */
  live(): Handle {
    if (this.handle < 0) {
      throw new TensorError({
        where: 'tensor',
        expected: 'a live tensor',
        received: `one of shape [${this.#shape?.join(', ') ?? '?'}] that was disposed`,
        remedy: 'return it from its scope(), or keep() it',
      });
    }
    return this.handle;
  }

  /** Frees this handle now. The memory goes when no other handle, view or graph uses it. */
  dispose(): void {
    if (this.handle < 0) return;
    engine().free(this.handle);
    if (this.watchedBytes >= 0) {
      finalizer.unregister(this);
      engine().adjustMemory(-this.watchedBytes);
    }
    this.handle = -1;
  }
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Accumulates gradients into the leaves. @param gradient of this tensor; may be left out for a single element */
  backward(gradient?: Tensor, options: { retainGraph?: boolean } = {}): void {
    const gradients = gradient ? [gradient.live()] : undefined;
    attempt('backward', [this], () =>
      engine().backward([this.live()], gradients, options.retainGraph ?? false),
    );
  }

  /** A row-major copy on the host. bfloat16 and float16 come out as Float32Array, bool as Uint8Array. */
  toTypedArray(): AnyTypedArray {
    return engine().toArray(this.live());
  }
  /** A row-major copy of the elements' own bytes on the host, whatever the dtype. */
  toBytes(): Uint8Array {
    return engine().toBytes(this.live());
  }
  /** Appends the elements' own bytes, row-major, to an open file, without a copy where they lie so on the host. Blocks this
   *  thread until the system has taken them.
   *  @param file its descriptor
   *  @throws {NodeJS.ErrnoException} where the system refuses them; some may have been written */
  writeTo(file: number): void {
    const fault = engine().writeTensor(this.live(), file);
    if (fault === 0) return;
    const [code, words] = getSystemErrorMap().get(-fault) ?? [`E${fault}`, 'unknown error'];
    throw Object.assign(new Error(`${code}: ${words}, write`), { errno: -fault, code, syscall: 'write' });
  }
  /** The single element's value. */
  item(): number {
    return attempt('item', [this], () => engine().item(this.live()));
  }

  add(other: Operand): Tensor {
    return other instanceof Tensor ? addTensor(this, other) : addScalar(this, other);
  }
  sub(other: Operand): Tensor {
    return other instanceof Tensor ? subTensor(this, other) : subScalar(this, other);
  }
  mul(other: Operand): Tensor {
    return other instanceof Tensor ? mulTensor(this, other) : mulScalar(this, other);
  }
  div(other: Operand): Tensor {
    return other instanceof Tensor ? divTensor(this, other) : divScalar(this, other);
  }
  pow(exponent: Operand): Tensor {
    return exponent instanceof Tensor ? powTensor(this, exponent) : powScalar(this, exponent);
  }
  matmul(other: Tensor): Tensor {
    return matmul(this, other);
  }
  neg(): Tensor {
    return neg(this);
  }
  sqrt(): Tensor {
    return sqrt(this);
  }
  rsqrt(): Tensor {
    return rsqrt(this);
  }
  exp(): Tensor {
    return exp(this);
  }
  log(): Tensor {
    return log(this);
  }
  tanh(): Tensor {
    return tanh(this);
  }
  sigmoid(): Tensor {
    return sigmoid(this);
  }
  relu(): Tensor {
    return relu(this);
  }
  abs(): Tensor {
    return abs(this);
  }
  sin(): Tensor {
    return sin(this);
  }
  cos(): Tensor {
    return cos(this);
  }
  square(): Tensor {
    return square(this);
  }
  isfinite(): Tensor {
    return isfinite(this);
  }
  clamp({ min, max }: { min?: number; max?: number }): Tensor {
    return clamp(this, min ?? null, max ?? null);
  }

  sum(dims?: number | readonly number[], keepdim = false): Tensor {
    return dims === undefined ? sumAll(this) : sumDims(this, list(dims), keepdim);
  }
  mean(dims?: number | readonly number[], keepdim = false): Tensor {
    return dims === undefined ? meanAll(this) : meanDims(this, list(dims), keepdim);
  }
  amax(dims: number | readonly number[] = [], keepdim = false): Tensor {
    return amax(this, list(dims), keepdim);
  }
  argmax(dim?: number, keepdim = false): Tensor {
    return argmax(this, dim, keepdim);
  }
  cumsum(dim: number): Tensor {
    return cumsum(this, dim);
  }
  any(): Tensor {
    return anyOf(this);
  }
  all(): Tensor {
    return allOf(this);
  }

  reshape(shape: readonly number[]): Tensor {
    return reshape(this, shape);
  }
  view(shape: readonly number[]): Tensor {
    return view(this, shape);
  }
  transpose(dim0: number, dim1: number): Tensor {
    return transpose(this, dim0, dim1);
  }
  permute(dims: readonly number[]): Tensor {
    return permute(this, dims);
  }
  unsqueeze(dim: number): Tensor {
    return unsqueeze(this, dim);
  }
  squeeze(dim: number): Tensor {
    return squeeze(this, dim);
  }
  expand(shape: readonly number[]): Tensor {
    return expand(this, shape);
  }
  contiguous(memoryFormat?: 'contiguous' | 'channelsLast'): Tensor {
    return contiguous(this, memoryFormat);
  }
  flatten(start = 0, end = -1): Tensor {
    return flatten(this, start, end);
  }
  narrow(dim: number, start: number, length: number): Tensor {
    return narrow(this, dim, start, length);
  }
  select(dim: number, index: number): Tensor {
    return select(this, dim, index);
  }
  split(sizes: number | readonly number[], dim = 0): Tensor[] {
    return typeof sizes === 'number' ? splitEven(this, sizes, dim) : splitSizes(this, sizes, dim);
  }
  chunk(count: number, dim = 0): Tensor[] {
    return chunk(this, count, dim);
  }
  indexSelect(dim: number, indices: Tensor): Tensor {
    return indexSelect(this, dim, indices);
  }
  gather(dim: number, indices: Tensor): Tensor {
    return gather(this, dim, indices);
  }
  /** Converts to a dtype or moves to a device. */
  to(target: DType | (string & {})): Tensor {
    if ((DTYPES as readonly string[]).includes(target)) {
      return this.dtype === target ? alias(this) : toDType(this, target);
    }
    return toDevice(this, target, this.dtype);
  }
  clone(): Tensor {
    return clone(this);
  }
  detach(): Tensor {
    return detach(this);
  }

  eq(other: Operand): Tensor {
    return other instanceof Tensor ? eqTensor(this, other) : eqScalar(this, other);
  }
  ne(other: Operand): Tensor {
    return other instanceof Tensor ? neTensor(this, other) : neScalar(this, other);
  }
  lt(other: Operand): Tensor {
    return other instanceof Tensor ? ltTensor(this, other) : ltScalar(this, other);
  }
  le(other: Operand): Tensor {
    return other instanceof Tensor ? leTensor(this, other) : leScalar(this, other);
  }
  gt(other: Operand): Tensor {
    return other instanceof Tensor ? gtTensor(this, other) : gtScalar(this, other);
  }
  ge(other: Operand): Tensor {
    return other instanceof Tensor ? geTensor(this, other) : geScalar(this, other);
  }
  logicalAnd(other: Tensor): Tensor {
    return logicalAnd(this, other);
  }
  logicalOr(other: Tensor): Tensor {
    return logicalOr(this, other);
  }
  logicalNot(): Tensor {
    return logicalNot(this);
  }
  maskedFill(mask: Tensor, value: number): Tensor {
    return maskedFill(this, mask, value);
  }
  maskedScatter(mask: Tensor, source: Tensor): Tensor {
    return maskedScatter(this, mask, source);
  }

  add_(other: Operand, alpha?: number): this {
    if (other instanceof Tensor) addTensor_(this, other, alpha);
    else addScalar_(this, other, alpha);
    return this;
  }
  sub_(other: Operand): this {
    if (other instanceof Tensor) subTensor_(this, other);
    else addScalar_(this, -other);
    return this;
  }
  mul_(other: Operand): this {
    if (other instanceof Tensor) mulTensor_(this, other);
    else mulScalar_(this, other);
    return this;
  }
  div_(other: Operand): this {
    if (other instanceof Tensor) divTensor_(this, other);
    else divScalar_(this, other);
    return this;
  }
  copy_(source: Tensor): this {
    copy_(this, source);
    return this;
  }
  zero_(): this {
    zero_(this);
    return this;
  }
  fill_(value: number): this {
    fill_(this, value);
    return this;
  }
}

/** Gradients of `outputs` with respect to `inputs`; null where an input takes no part.
 *  @param gradOutputs one an output; may be left out for single elements */
export function grad(
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  gradOutputs?: readonly Tensor[],
  options: { retainGraph?: boolean } = {},
): (Tensor | null)[] {
  const handles = (tensors: readonly Tensor[]) => tensors.map((tensor) => tensor.live());
  const gradients = attempt('grad', [...outputs, ...inputs], () =>
    engine().gradients(
      handles(outputs),
      handles(inputs),
      gradOutputs && handles(gradOutputs),
      options.retainGraph ?? false,
    ),
  );
  return gradients.map((handle) => (handle > 0 ? new Tensor(handle) : null));
}

/** Accumulates gradients into the leaves of several tensors' graphs at once, and disposes of both: their memory is free as
 *  soon as the pass has no more use for it. @param gradients one an output */
export function backwardTaking(outputs: readonly Tensor[], gradients: readonly Tensor[]): void {
  try {
    attempt('backward', [], () =>
      engine().backwardTaking(
        outputs.map((tensor) => tensor.live()),
        gradients.map((tensor) => tensor.live()),
      ),
    );
  } finally {
    for (const tensor of [...outputs, ...gradients]) tensor.dispose();
  }
}

// --- operators by name -----------------------------------------------------------------------------------------------

/** Any operator of libtorch: `op('aten::topk')`, `op('aten::add.Tensor')`.
 *
 *  Arguments come in the order of the operator's schema, keyword-only ones last; `undefined` takes the schema's default.
 *  dtypes are names ('float32'), devices are 'cpu' or 'cuda:0', memory formats 'contiguous' or 'channelsLast'.
 *  Operators that write their first argument in place return it. Resolved at the first call.
 *  @throws {TensorError} naming the operator and the shapes it was given */
export function op<R = Tensor>(name: string): (...args: OpArgument[]) => R {
  const dot = name.indexOf('.', name.indexOf('::'));
  const base = dot < 0 ? name : name.slice(0, dot);
  const overload = dot < 0 ? '' : name.slice(dot + 1);
  let resolved: ResolvedOp | undefined;
  return (...args: OpArgument[]): R => {
    resolved ??= attempt(name, [], () => engine().resolve(base, overload));
    let result: unknown;
    try {
      result = resolved.call(...args.map(toNative));
    } catch (error) {
      throw operatorError(name, args, error);
    }
    switch (resolved.result) {
      case 'tensor':
        return wrapTensor(result as Handle) as R;
      case 'self':
        return args[0] as R;
      case 'nothing':
        return undefined as R;
      case 'other':
        return fromNative(result, resolved.kinds[0]) as R;
      case 'several': {
        const { kinds } = resolved;
        return (result as unknown[]).map((value, index) => fromNative(value, kinds[index])) as R;
      }
    }
  };
}

function toNative(argument: OpArgument): unknown {
  if (argument instanceof Tensor) return argument.live();
  if (Array.isArray(argument)) return argument.map(toNative);
  return argument;
}

function wrapTensor(handle: Handle): Tensor | null {
  return handle > 0 ? new Tensor(handle) : null;
}

function fromNative(value: unknown, kind: ResolvedOp['kinds'][number] | undefined): unknown {
  if (kind === 'tensor') return wrapTensor(value as Handle);
  if (kind === 'tensors') return (value as Handle[]).map(wrapTensor);
  return value;
}

/** Runs a call of the engine; its errors say where, and what was given. */
export function attempt<T>(where: string, tensors: readonly Tensor[], body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw operatorError(where, tensors, error);
  }
}

function operatorError(where: string, args: readonly OpArgument[], cause: unknown): TensorError {
  if (cause instanceof TensorError) return cause;
  const given = args.map(describe).filter((text) => text !== '');
  const message = messageOf(cause)
    .replace(/\nException raised from[\s\S]*/, '')
    .trim();
  const prefix = message.startsWith(`${where}:`) ? '' : `${where}: `;
  return new TensorError(`${prefix}${message}${given.length > 0 ? `; given ${given.join(', ')}` : ''}`, {
    cause,
  });
}

function describe(argument: OpArgument): string {
  if (argument instanceof Tensor) {
    return argument.disposed ? 'a disposed tensor' : `${argument.dtype} [${argument.shape.join(', ')}]`;
  }
  if (Array.isArray(argument)) {
    return argument.some((element) => element instanceof Tensor)
      ? `(${argument.map(describe).join(', ')})`
      : '';
  }
  return '';
}

function list(dims: number | readonly number[]): readonly number[] {
  return typeof dims === 'number' ? [dims] : dims;
}

const addTensor = op('aten::add.Tensor');
const addScalar = op('aten::add.Scalar');
const subTensor = op('aten::sub.Tensor');
const subScalar = op('aten::sub.Scalar');
const mulTensor = op('aten::mul.Tensor');
const mulScalar = op('aten::mul.Scalar');
const divTensor = op('aten::div.Tensor');
const divScalar = op('aten::div.Scalar');
const powTensor = op('aten::pow.Tensor_Tensor');
const powScalar = op('aten::pow.Tensor_Scalar');
const matmul = op('aten::matmul');
const neg = op('aten::neg');
const sqrt = op('aten::sqrt');
const rsqrt = op('aten::rsqrt');
const exp = op('aten::exp');
const log = op('aten::log');
const tanh = op('aten::tanh');
const sigmoid = op('aten::sigmoid');
const relu = op('aten::relu');
const abs = op('aten::abs');
const sin = op('aten::sin');
const cos = op('aten::cos');
const square = op('aten::square');
const isfinite = op('aten::isfinite');
const clamp = op('aten::clamp');
const sumAll = op('aten::sum');
const sumDims = op('aten::sum.dim_IntList');
const meanAll = op('aten::mean');
const meanDims = op('aten::mean.dim');
const amax = op('aten::amax');
const argmax = op('aten::argmax');
const cumsum = op('aten::cumsum');
const anyOf = op('aten::any');
const allOf = op('aten::all');
const reshape = op('aten::reshape');
const view = op('aten::view');
const transpose = op('aten::transpose.int');
const permute = op('aten::permute');
const unsqueeze = op('aten::unsqueeze');
const squeeze = op('aten::squeeze.dim');
const expand = op('aten::expand');
const contiguous = op('aten::contiguous');
const flatten = op('aten::flatten.using_ints');
const narrow = op('aten::narrow');
const select = op('aten::select.int');
const splitEven = op<Tensor[]>('aten::split.Tensor');
const splitSizes = op<Tensor[]>('aten::split_with_sizes');
const chunk = op<Tensor[]>('aten::chunk');
const indexSelect = op('aten::index_select');
const gather = op('aten::gather');
const alias = op('aten::alias');
const toDType = op('aten::to.dtype');
const toDevice = op('aten::to.device');
const clone = op('aten::clone');
const detach = op('aten::detach');
const eqTensor = op('aten::eq.Tensor');
const eqScalar = op('aten::eq.Scalar');
const neTensor = op('aten::ne.Tensor');
const neScalar = op('aten::ne.Scalar');
const ltTensor = op('aten::lt.Tensor');
const ltScalar = op('aten::lt.Scalar');
const leTensor = op('aten::le.Tensor');
const leScalar = op('aten::le.Scalar');
const gtTensor = op('aten::gt.Tensor');
const gtScalar = op('aten::gt.Scalar');
const geTensor = op('aten::ge.Tensor');
const geScalar = op('aten::ge.Scalar');
const logicalAnd = op('aten::logical_and');
const logicalOr = op('aten::logical_or');
const logicalNot = op('aten::logical_not');
const maskedFill = op('aten::masked_fill.Scalar');
const maskedScatter = op('aten::masked_scatter');
const addTensor_ = op('aten::add_.Tensor');
const addScalar_ = op('aten::add_.Scalar');
const subTensor_ = op('aten::sub_.Tensor');
const mulTensor_ = op('aten::mul_.Tensor');
const mulScalar_ = op('aten::mul_.Scalar');
const divTensor_ = op('aten::div_.Tensor');
const divScalar_ = op('aten::div_.Scalar');
const copy_ = op('aten::copy_');
const zero_ = op('aten::zero_');
const fill_ = op('aten::fill_.Scalar');
