// Reads what test/reference/*.py recorded.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Gemma3nText } from '../../src/models/gemma3n/gemma3n-text.js';
import { decodeConfig } from '../../src/models/gemma3n/config.js';
import type { Module } from '../../src/nn/index.js';
import {
  type DType,
  type Tensor,
  noGrad,
  setNumThreads,
  tensor,
  withDefaults,
} from '../../src/tensor/index.js';

export const referencePath = (name: string): string =>
  fileURLToPath(new URL(`../../fixtures/reference/${name}`, import.meta.url));

export const readJson = (path: string): Record<string, unknown> =>
  JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;

export interface Stored {
  readonly dtype: string;
  readonly shape: number[];
  readonly bytes: Uint8Array;
}

/** A safetensors file, whole. */
export function readSafetensors(path: string): Map<string, Stored> {
  const file = readFileSync(path);
  const headerLength = Number(file.readBigUInt64LE(0));
  type Entry = { dtype: string; shape: number[]; data_offsets: [number, number] };
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerLength)) as Record<string, Entry>;
  const data = file.subarray(8 + headerLength);
  return new Map(
    Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(
        ([
          name,
          {
            dtype,
            shape,
            data_offsets: [start, end],
          },
        ]) => [name, { dtype, shape, bytes: Uint8Array.from(data.subarray(start, end)) }],
      ),
  );
}

/** float32 or int64, as stored. */
export function toTensor({ dtype, shape, bytes }: Stored): Tensor {
  return dtype === 'I64'
    ? tensor(new BigInt64Array(bytes.buffer), shape)
    : tensor(new Float32Array(bytes.buffer), shape);
}

/** A field path as Hugging Face spells it. */
export const snakeCase = (path: string): string =>
  path.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** Fills every parameter from the file; each must be there, and nothing else. */
export function loadInto(model: Module, path: string): void {
  const stored = readSafetensors(path);
  for (const [name, parameter] of model.namedParameters()) {
    const value = stored.get(name);
    if (!value) throw new Error(`${path} lacks ${name}`);
    noGrad(() => parameter.copy_(toTensor(value)));
    stored.delete(name);
  }
  if (stored.size > 0) throw new Error(`${path} also holds ${[...stored.keys()].join(', ')}`);
}

export interface TextReference {
  readonly model: Gemma3nText;
  readonly values: Map<string, Stored>;
  readonly value: (name: string) => Tensor;
  readonly gradientCase: string;
  readonly gradientInTraining: boolean;
}

/** A model of fixtures/reference/text-NAME with its recorded values. */
export function textReference(name: string, dtype: DType = 'float32'): TextReference {
  setNumThreads(1); // tiny products only wait for a second thread
  const dir = referencePath(`text-${name}`);
  const config = decodeConfig(readJson(`${dir}/config.json`));
  const model = withDefaults({ dtype }, () => new Gemma3nText(config)).eval();
  loadInto(model, `${dir}/model.safetensors`);
  const values = readSafetensors(`${dir}/values.safetensors`);
  const { gradient } = readJson(`${dir}/values.json`) as { gradient: { case: string; training: boolean } };
  const value = (key: string): Tensor => {
    const stored = values.get(key);
    if (!stored) throw new Error(`${dir}: no value ${key}`);
    return toTensor(stored);
  };
  return { model, values, value, gradientCase: gradient.case, gradientInTraining: gradient.training };
}

export function numbers(t: Tensor): number[] {
  return Array.from(t.toTypedArray() as ArrayLike<number | bigint>, Number);
}

/** Largest |a - b|, over the largest |b|. */
export function relativeMax(a: Tensor, b: Tensor): number {
  const [x, y] = [numbers(a), numbers(b)];
  if (x.length !== y.length) throw new Error(`${x.length} and ${y.length} elements`);
  const scale = Math.max(...y.map(Math.abs), 1e-30);
  return Math.max(...x.map((value, i) => Math.abs(value - (y[i] ?? NaN)))) / scale;
}

/** ||a - b|| / ||b||. */
export function relativeNorm(a: Tensor, b: Tensor): number {
  const [x, y] = [numbers(a), numbers(b)];
  if (x.length !== y.length) throw new Error(`${x.length} and ${y.length} elements`);
  const norm = (list: readonly number[]): number =>
    Math.sqrt(list.reduce((sum, value) => sum + value * value, 0));
  return norm(x.map((value, i) => value - (y[i] ?? NaN))) / Math.max(norm(y), 1e-30);
}
