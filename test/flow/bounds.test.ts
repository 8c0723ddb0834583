import { describe, expect, it } from 'vitest';
import { FlowError } from '../../src/errors.js';
import {
  batch,
  checkBounds,
  chain,
  flatMap,
  map,
  stagesOf,
  type AnyEntry,
  type AnyStage,
} from '../../src/flow/index.js';
import { reservesOf } from '../../src/flow/bounds.js';

const same = (values: readonly unknown[]): readonly unknown[] => values;
const check = (maxItemBytes: number | undefined, entries: AnyEntry[], poolBytes: number): void =>
  checkBounds(maxItemBytes === undefined ? {} : { maxItemBytes }, stagesOf(entries), poolBytes);

describe('the check of a graph against its pool', () => {
  it('refuses a pool that is smaller than one batch, with the numbers', () => {
    expect(() => check(1000, [batch({ size: 4 }, same)], 3999)).toThrow(
      new FlowError(
        'pool of 3999 bytes: expected at least 4000 bytes, since batch holds up to 4 items of up to 1000 bytes, received 3999 bytes; raise poolBytes, or let the stage hold less',
      ),
    );
    expect(() => check(1000, [batch({ size: 4 }, same)], 4000)).not.toThrow();
  });

  it('counts every stage that holds, in items of the source', () => {
    const entries = [
      batch({ size: 4 }, same, { name: 'rows' }),
      chain(
        map((v: readonly unknown[]) => v),
        batch({ size: 3 }, same, { name: 'pages' }),
      ),
    ];
    expect(() => check(10, entries, 119)).toThrow(
      'pool of 119 bytes: expected at least 120 bytes, since rows holds up to 4 items of up to 10 bytes and pages holds up to 12 items of up to 10 bytes, received 119 bytes; raise poolBytes, or let the stage hold less',
    );
    expect(() => check(10, entries, 120)).not.toThrow();
  });

  it('takes the bytes that a stage declares instead of its items', () => {
    const shuffle: AnyStage = { ...map((v: unknown) => v), name: 'shuffle', holdsBytes: 500 };
    expect(() => check(10, [shuffle], 509)).toThrow(
      'pool of 509 bytes: expected at least 510 bytes, since shuffle holds up to 500 bytes, received 509 bytes; raise poolBytes, or let the stage hold less',
    );
    expect(() => check(undefined, [shuffle], 499)).toThrow(/at least 500 bytes/);
    expect(() => check(10, [shuffle], 510)).not.toThrow();
  });

  it('counts what stages make of a sample', () => {
    const decode = map((v: unknown) => v, { name: 'decode', itemBytes: 700 });
    expect(() => check(100, [decode, batch({ size: 2 }, same)], 1399)).toThrow(
      /at least 1400 bytes, since batch holds up to 2 items of up to 700 bytes/,
    );
    expect(() => check(100, [decode], 699)).toThrow(
      'pool of 699 bytes: expected at least 700 bytes, which one sample may come to weigh, received 699 bytes; raise poolBytes, or let the stage hold less',
    );
  });

  it('lets an item that may be bigger than the pool pass, where nothing is held: it is admitted alone', () => {
    expect(() => check(1000, [map((v: unknown) => v)], 10)).not.toThrow();
  });

  it('cannot tell without a declared size', () => {
    expect(() => check(undefined, [batch({ size: 4 }, same)], 1)).not.toThrow();
  });
});

describe('the reserve of a sample', () => {
  it('is the most that this and later stages make of it, times what it may be split into', () => {
    const stages = stagesOf([
      map((v: unknown) => v, { itemBytes: 50 }),
      flatMap((v: unknown) => [v], { maxOutputs: 3 }),
      map((v: unknown) => v, { itemBytes: 20 }),
      batch({ size: 2 }, same, { itemBytes: 10 }),
    ]);
    expect(reservesOf(stages)).toEqual([60, 60, 20, 10, 0]);
  });
});
