// What a checkpoint's weights look like, a tensor at a time from the mapped file: dtypes, dead and all-zero weights,
// values that are no numbers, and tensors whose magnitude is far from that of their kind in the other layers.

import {
  checkpointFault,
  elementBytes,
  openWeights,
  quote,
  type TensorEntry,
  type TensorSource,
} from '../../checkpoint/index.js';
import { noGrad, op, scope, type Tensor } from '../../tensor/index.js';
import type { Gemma3nConfig } from './config.js';
import { numElements, withShapesOnly } from './shapes.js';
import { planWeights } from './weights.js';

export interface WeightFacts {
  readonly files: number;
  readonly bytes: number;
  readonly dtypes: readonly DTypeFacts[];
  /** Keys and values of sharing layers: stored, and read by nothing. */
  readonly dead: readonly DeadFacts[];
  /** Tensors that compute and are zero throughout. */
  readonly zero: readonly string[];
  /** Matrices of which some rows are zero throughout: units or words that do nothing. */
  readonly zeroRows: readonly { readonly name: string; readonly rows: number; readonly of: number }[];
  readonly notFinite: readonly { readonly name: string; readonly nan: number; readonly infinite: number }[];
  readonly outliers: readonly OutlierFacts[];
}

export interface DTypeFacts {
  readonly dtype: string;
  readonly tensors: number;
  readonly parameters: number;
  readonly bytes: number;
}

export interface DeadFacts {
  readonly name: string;
  readonly parameters: number;
  readonly isZero: boolean;
}

/** A tensor whose root mean square is far from the median over the tensors of its kind. */
export interface OutlierFacts {
  readonly name: string;
  readonly rms: number;
  readonly median: number;
  /** rms / median */
  readonly ratio: number;
}

interface Magnitude {
  readonly rms: number;
  readonly zeroRows: number;
  readonly numRows: number;
  readonly nan: number;
  readonly infinite: number;
}

/** Elements looked at together: their float32 copy takes 16 MiB. */
const chunkElements = 4 * 2 ** 20;
/** An outlier is at least so many times larger or smaller than its kind's median, */
const LEAST_RATIO = 4;
/** and so many median deviations away from it, in the logarithm. */
const LEAST_DEVIATIONS = 6;
/** Kinds of fewer tensors have no median to speak of. */
const LEAST_TENSORS = 4;
/** Of a normal distribution, its deviation over the median absolute deviation. */
const PER_MAD = 1.4826;

const vectorNorm = op('aten::linalg_vector_norm');
const isInfinite = op('aten::isinf');

/** Reads every weight of a folder once, a few megabytes at a time.
 *  @throws {CheckpointError} when they are not those of the configuration
 *  @throws the signal's reason when it is aborted */
export async function weightFacts(
  folder: string,
  config: Gemma3nConfig,
  { signal }: { readonly signal?: AbortSignal | undefined } = {},
): Promise<WeightFacts> {
  const source = openWeights(folder);
  try {
    const { dead, names } = withShapesOnly(config, (model) => {
      const plan = planWeights(model, source, folder);
      const names = Array.from(model.namedParameters(), ([name]) => name);
      return { ...plan, names: new Map(plan.copies.map(([stored], i) => [stored, names[i] ?? stored])) };
    });
    const deadNames = new Map(dead);
    const magnitudes = new Map<string, Magnitude>();
    for (const stored of source.names) {
      // between two tensors, others have their turn
      await new Promise((resolve) => setImmediate(resolve));
      signal?.throwIfAborted();
      magnitudes.set(stored, magnitudeOf(source, stored));
    }
    const live = [...magnitudes].filter(([stored]) => !deadNames.has(stored));
    const nameOf = (stored: string): string => names.get(stored) ?? deadNames.get(stored) ?? stored;
    return {
      files: new Set(source.names.map((name) => source.fileOf(name))).size,
      ...dtypesOf(source),
      dead: dead.map(([stored, name]) => ({
        name,
        parameters: numElements(source.entry(stored).shape),
        isZero: isZero(magnitudes.get(stored)),
      })),
      zero: live.filter(([, m]) => isZero(m)).map(([stored]) => nameOf(stored)),
      zeroRows: live
        .filter(([, m]) => m.zeroRows > 0 && !isZero(m))
        .map(([stored, { zeroRows: rows, numRows: of }]) => ({ name: nameOf(stored), rows, of })),
      notFinite: [...magnitudes]
        .filter(([, { nan, infinite }]) => nan + infinite > 0)
        .map(([stored, { nan, infinite }]) => ({ name: nameOf(stored), nan, infinite })),
      outliers: outliersOf(live.map(([stored, m]) => [nameOf(stored), m.rms, source.entry(stored)])),
    };
  } finally {
    source.close();
  }
}

function isZero(magnitude: Magnitude | undefined): boolean {
  return magnitude !== undefined && magnitude.rms === 0 && magnitude.nan + magnitude.infinite === 0;
}

function magnitudeOf(source: TensorSource, stored: string): Magnitude {
  const { shape } = source.entry(stored);
  const numel = numElements(shape);
  const [numRows = 1] = shape.length > 1 ? shape : [1];
  if (numel === 0) {
    throw checkpointFault(source.fileOf(stored), stored, {
      expected: 'elements',
      received: `none: shape ${quote(shape.join('x'))}`,
      remedy: 'download or save the checkpoint again',
    });
  }
  let [squares, zeroRows, nan, infinite] = [0, 0, 0, 0];
  const rowElements = numel / (shape[0] ?? 1);
  const step = Math.max(1, Math.floor(chunkElements / rowElements));
  const look = (rows: Tensor): void => {
    const { largest, norm, zeros } = lookAt(rows, shape.length > 1);
    squares += norm ** 2;
    zeroRows += zeros;
    if (Number.isFinite(largest)) return;
    const numNaN = rows.ne(rows).sum().item();
    nan += numNaN;
    infinite += isInfinite(rows).sum().item();
  };
  noGrad(() => {
    if (shape.length === 0) scope(() => look(source.read(stored).view([1])));
    for (let start = 0; shape.length > 0 && start < (shape[0] ?? 0); start += step) {
      const count = Math.min(step, (shape[0] ?? 0) - start);
      scope(() => look(source.readRows(stored, start, count).to('float32')));
    }
  });
  return { rms: Math.sqrt(squares / numel), zeroRows, numRows, nan, infinite };
}

/** @param rows [count, ...] */
function lookAt(rows: Tensor, isMatrix: boolean): { largest: number; norm: number; zeros: number } {
  const flat = rows.reshape([isMatrix ? (rows.shape[0] ?? 1) : 1, -1]).to('float32');
  const largestOfRows = vectorNorm(flat, Infinity, [1]);
  const largest = largestOfRows.amax().item();
  const zeros = isMatrix ? largestOfRows.eq(0).sum().item() : 0;
  if (!Number.isFinite(largest)) return { largest, norm: 0, zeros };
  if (largest === 0) return { largest, norm: 0, zeros };
  // scaled where squares would overflow or vanish in float32
  const isPlain = largest > 1e-12 && largest < 1e12;
  const norm = isPlain ? vectorNorm(flat).item() : vectorNorm(flat.div(largest)).item() * largest;
  return { largest, norm, zeros };
}

function dtypesOf(source: TensorSource): Pick<WeightFacts, 'bytes' | 'dtypes'> {
  const found = new Map<string, { tensors: number; parameters: number; bytes: number }>();
  for (const name of source.names) {
    const { dtype, shape } = source.entry(name);
    const facts = found.get(dtype) ?? { tensors: 0, parameters: 0, bytes: 0 };
    found.set(dtype, {
      tensors: facts.tensors + 1,
      parameters: facts.parameters + numElements(shape),
      bytes: facts.bytes + numElements(shape) * elementBytes(dtype),
    });
  }
  const dtypes = [...found].map(([dtype, facts]) => ({ dtype, ...facts })).sort((a, b) => b.bytes - a.bytes);
  return { dtypes, bytes: dtypes.reduce((sum, { bytes }) => sum + bytes, 0) };
}

/** Tensors of one kind have one name but for the numbers of their layers, and one shape. */
function outliersOf(
  tensors: readonly (readonly [name: string, rms: number, entry: TensorEntry])[],
): OutlierFacts[] {
  const kinds = new Map<string, [name: string, rms: number][]>();
  for (const [name, rms, { shape }] of tensors) {
    if (!(rms > 0) || !Number.isFinite(rms)) continue;
    const kind = `${name.replace(/\.\d+(?=\.)/g, '.*')} ${shape.join('x')}`;
    kinds.set(kind, [...(kinds.get(kind) ?? []), [name, rms]]);
  }
  return [...kinds.values()].flatMap((kind) => {
    if (kind.length < LEAST_TENSORS) return [];
    const logs = kind.map(([, rms]) => Math.log(rms));
    const middle = medianOf(logs);
    const spread = PER_MAD * medianOf(logs.map((log) => Math.abs(log - middle)));
    const least = Math.max(Math.log(LEAST_RATIO), LEAST_DEVIATIONS * spread);
    return kind
      .filter(([, rms]) => Math.abs(Math.log(rms) - middle) > least)
      .map(([name, rms]) => ({ name, rms, median: Math.exp(middle), ratio: rms / Math.exp(middle) }));
  });
}

function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[half] ?? NaN)
    : ((sorted[half - 1] ?? NaN) + (sorted[half] ?? NaN)) / 2;
}
