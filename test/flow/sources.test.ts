import { describe, expect, it } from 'vitest';
import { repeatSource, runFlow, takeSource, type Source } from '../../src/flow/index.js';
import { range, sourceOf } from './helpers.js';

async function read<T>(source: Source<T>): Promise<T[]> {
  const values: T[] = [];
  await runFlow({ source, stages: [], poolBytes: 1000, consume: (value: T) => void values.push(value) });
  return values;
}

describe('takeSource', () => {
  it('gives the first items, and closes the source without a pull too many', async () => {
    const source = sourceOf(range(10));
    expect(await read(takeSource(source, 3))).toEqual([0, 1, 2]);
    expect(source.log).toEqual({ opened: 1, pulled: 3, returned: 1, aborted: 0 });
  });

  it('gives all of a source that has fewer, and nothing of any for 0', async () => {
    expect(await read(takeSource(sourceOf(range(2)), 3))).toEqual([0, 1]);
    const source = sourceOf(range(2));
    expect(await read(takeSource(source, 0))).toEqual([]);
    expect(source.log.opened).toBe(0);
  });

  it('refuses a count that is none', () => {
    expect(() => takeSource(sourceOf([1]), -1)).toThrow(
      'source rows: take: expected a whole number, 0 or more, received -1; correct this option',
    );
  });
});

describe('repeatSource', () => {
  it('reads the source anew for each epoch', async () => {
    const source = sourceOf(range(2));
    expect(await read(repeatSource(source, 3))).toEqual([0, 1, 0, 1, 0, 1]);
    expect(source.log.opened).toBe(3);
  });

  it('may never end', async () => {
    expect(await read(takeSource(repeatSource(sourceOf(range(3)), Infinity), 7))).toEqual([
      0, 1, 2, 0, 1, 2, 0,
    ]);
  });

  it('keeps name and size, and closes the source when it ends early', async () => {
    const source = sourceOf(range(3), { maxItemBytes: 100 });
    const repeated = repeatSource(source, 2);
    expect(repeated).toMatchObject({ name: 'rows', maxItemBytes: 100 });
    expect(await read(takeSource(repeated, 4))).toEqual([0, 1, 2, 0]);
    expect(source.log.returned).toBe(1);
  });

  it('fails on an epoch without items instead of turning for ever', async () => {
    await expect(read(repeatSource(sourceOf([]), Infinity))).rejects.toThrow(
      'source rows: expected items in epoch 0, received none; check what the source reads',
    );
    expect(await read(repeatSource(sourceOf([]), 1))).toEqual([]);
  });

  it('refuses a number of epochs that is none', () => {
    expect(() => repeatSource(sourceOf([1]), 0)).toThrow(
      'source rows: epochs: expected a positive whole number, received 0; correct this option',
    );
  });
});
