// Tensors copied many at a time, and written to files from where they lie.

import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { copyAll, empty, scope, tensor, type DType } from '../../src/tensor/index.js';

const folder = mkdtempSync(join(tmpdir(), 'sluice-copy-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const counted = (numel: number, shape: readonly number[], dtype: DType = 'float32') =>
  tensor(
    Float32Array.from({ length: numel }, (_, i) => (i % 251) - 125),
    shape,
    dtype,
  );

describe('copyAll', () => {
  it('copies tensors of many sizes and dtypes, also ones of several pieces', () =>
    scope(() => {
      const sources = [
        counted(700_001, [700_001]),
        counted(12, [3, 4], 'bfloat16'),
        counted(0, [0, 4]),
        counted(1, []),
        counted(600_000, [600, 1000], 'int64'),
      ];
      const targets = sources.map(({ shape, dtype }) => empty(shape, { dtype, device: 'cpu' }));
      copyAll(sources, targets);
      targets.forEach((target, i) => expect(target.toTypedArray()).toEqual(sources[i]!.toTypedArray()));
    }));

  it('copies views and other dtypes element by element', () =>
    scope(() => {
      const source = counted(6, [2, 3]).transpose(0, 1);
      const target = empty([3, 2], { dtype: 'bfloat16', device: 'cpu' });
      copyAll([source], [target]);
      expect([...target.toTypedArray()]).toEqual([-125, -122, -124, -121, -123, -120]);
    }));

  it('refuses other shapes and numbers', () =>
    scope(() => {
      const [one, other] = [counted(4, [4]), counted(4, [2, 2])];
      expect(() => copyAll([one], [other])).toThrow('expected a target of shape [4], received [2, 2]');
      expect(() => copyAll([one], [])).toThrow('expected as many targets as the 1 sources, received 0');
    }));
});

describe("a tensor's bytes", () => {
  it('go to the position of an open file as toBytes gives them', () =>
    scope(() => {
      const path = join(folder, 'written');
      const file = openSync(path, 'w');
      const tensors = [
        counted(600_001, [600_001]),
        counted(6, [2, 3], 'bfloat16').transpose(0, 1),
        counted(0, [0]),
      ];
      for (const one of tensors) one.writeTo(file);
      closeSync(file);
      expect(readFileSync(path).equals(Buffer.concat(tensors.map((one) => one.toBytes())))).toBe(true);
    }));

  it('that the system refuses are its error, named as Node names it', () =>
    scope(() => {
      const file = openSync(join(folder, 'written'), 'r');
      const write = () => counted(4, [4]).writeTo(file);
      expect(write).toThrow('EBADF: bad file descriptor, write');
      expect(write).toThrow(expect.objectContaining({ code: 'EBADF', syscall: 'write' }));
      closeSync(file);
    }));
});
