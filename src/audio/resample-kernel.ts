// The inner loop of resampling as WebAssembly with four lanes, several times as fast as JavaScript's. The module is small
// enough to be put together here, instruction by instruction (WebAssembly 1.0 with fixed-width SIMD).

/** Weighted sums of a wave at regular steps. All places are in bytes, all numbers whole. */
export interface Kernel {
  readonly memory: Float32Array;
  /** Writes `count` sums from `out` on: sum_i x[i] taps[phase][i]; then x moves on by `whole`, `phase` by `step`, and x by
   *  one more sample each time that `phase` passes `numPhases`.
   *  @param rowBytes of the taps of one phase; a multiple of 32 */
  readonly run: (
    x: number,
    taps: number,
    out: number,
    count: number,
    rowBytes: number,
    numPhases: number,
    whole: number,
    step: number,
    phase: number,
  ) => void;
}

export const KERNEL_FLOATS = 2 ** 20;

/** What this needs of the global that TypeScript knows in browsers alone. */
interface Wasm {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: Readonly<Record<string, unknown>> };
}

/** @returns undefined where the processor lacks the instructions */
export function makeKernel(): Kernel | undefined {
  const { Instance, Module } = (globalThis as unknown as { readonly WebAssembly: Wasm }).WebAssembly;
  try {
    const { exports } = new Instance(new Module(moduleBytes()));
    const { buffer } = exports['m'] as { readonly buffer: ArrayBuffer };
    return { memory: new Float32Array(buffer), run: exports['f'] as Kernel['run'] };
  } catch {
    return undefined;
  }
}

// Parameters, then locals, by number.
const [x, taps, out, count, rowBytes] = [0, 1, 2, 3, 4] as const;
const [numPhases, whole, step, phase] = [5, 6, 7, 8] as const;
const [a, h, end, sum0, sum1] = [9, 10, 11, 12, 13] as const;

const I32 = 0x7f;
const V128 = 0x7b;
const VOID = 0x40;
const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
const constant = (value: number): number[] => [0x41, ...leb(value)];
const loop = (...body: number[][]): number[] => [0x03, VOID, ...body.flat(), END];
const block = (...body: number[][]): number[] => [0x02, VOID, ...body.flat(), END];
const when = (...body: number[][]): number[] => [0x04, VOID, ...body.flat(), END];
const branch = (depth: number): number[] => [0x0c, depth];
const branchIf = (depth: number): number[] => [0x0d, depth];
const END = 0x0b;
const isZero = [0x45];
const isBelow = [0x49];
const isAtLeast = [0x4f];
const add = [0x6a];
const subtract = [0x6b];
const multiply = [0x6c];
const addFloats = [0x92];
const storeFloat = [0x38, 0, 0];
const zeros = [0xfd, 0x0c, ...new Array<number>(16).fill(0)];
const loadFour = (offset: number): number[] => [0xfd, 0x00, 0, offset];
const addFour = [0xfd, 0xe4, 0x01];
const multiplyFour = [0xfd, 0xe6, 0x01];
const lane = (index: number): number[] => [0xfd, 0x1f, index];

const increase = (local: number, by: number[]): number[] => [...get(local), ...by, ...add, ...set(local)];
const accumulate = (sum: number, offset: number): number[] =>
  [get(sum), get(a), loadFour(offset), get(h), loadFour(offset), multiplyFour, addFour, set(sum)].flat();

/** Eight taps a turn, in two sums that do not wait for each other. */
const weightedSum: number[] = [
  [...zeros, ...set(sum0), ...zeros, ...set(sum1)],
  [...get(x), ...set(a)],
  [...get(taps), ...get(phase), ...get(rowBytes), ...multiply, ...add, ...set(h)],
  [...get(h), ...get(rowBytes), ...add, ...set(end)],
  loop(
    accumulate(sum0, 0),
    accumulate(sum1, 16),
    increase(a, constant(32)),
    increase(h, constant(32)),
    [...get(h), ...get(end), ...isBelow],
    branchIf(0),
  ),
  [...get(sum0), ...get(sum1), ...addFour, ...set(sum0)],
].flat();

const body: number[] = block(
  loop(
    [...get(count), ...isZero],
    branchIf(1),
    weightedSum,
    get(out),
    ...[0, 1, 2, 3].map((index) => [...get(sum0), ...lane(index)]),
    [...addFloats, ...addFloats, ...addFloats],
    storeFloat,
    increase(out, constant(4)),
    increase(x, get(whole)),
    increase(phase, get(step)),
    [...get(phase), ...get(numPhases), ...isAtLeast],
    when([...get(phase), ...get(numPhases), ...subtract, ...set(phase)], increase(x, constant(4))),
    [...get(count), ...constant(1), ...subtract, ...set(count)],
    branch(0),
  ),
);

function moduleBytes(): Uint8Array {
  const section = (id: number, ...content: number[][]): number[] => sized([id], content.flat());
  const name = (letter: string): number[] => [1, letter.charCodeAt(0)];
  const locals = [2, 3, I32, 2, V128];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 9, ...new Array<number>(9).fill(I32), 0]),
    ...section(3, [1, 0]),
    ...section(5, [1, 0], leb((KERNEL_FLOATS * 4) / 2 ** 16)),
    ...section(7, [2], [...name('m'), 2, 0], [...name('f'), 0, 0]),
    ...section(10, [1], sized([], [...locals, ...body, END])),
  ]);
}

function sized(head: readonly number[], content: readonly number[]): number[] {
  return [...head, ...leb(content.length), ...content];
}

/** A number below 2^31 in groups of seven bits, as unsigned and, for those below 64, as signed. */
function leb(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...leb(value >>> 7)];
}
