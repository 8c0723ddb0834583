import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { orderedMap, runFlow, type Source, type Stage } from '../../src/flow/index.js';

/** Values of 10 bytes; says how many were pulled. */
function counted(count: number): Source<number> & { pulled: number } {
  const source = {
    name: 'numbers',
    pulled: 0,
    async *open() {
      for (let row = 0; row < count; row++) {
        source.pulled++;
        yield { value: row, bytes: 10, origin: { file: 'n', rowGroup: 0, row } };
        await turn();
      }
    },
  };
  return source;
}

/** Makes 300 bytes of each value, which it does not know before the first one. */
function growing(): Stage<number, number> {
  let itemBytes = 0;
  const stage = orderedMap((value: number) => value, {
    name: 'grow',
    weigh: () => (itemBytes = 300),
  });
  return {
    ...stage,
    get itemBytes() {
      return itemBytes;
    },
  };
}

describe('a stage that learns what its samples weigh', () => {
  it('lets no more samples in than have room when they are that heavy', async () => {
    const source = counted(50);
    let ahead = 0;
    let consumed = 0;
    const { ledger, peakBytes } = await runFlow({
      source,
      stages: [growing()],
      poolBytes: 1000,
      consume: async () => {
        for (let i = 0; i < 20; i++) await turn();
        ahead = Math.max(ahead, source.pulled - consumed++);
      },
    });
    expect(ledger).toEqual({ issued: 50, trained: 50, dropped: 0, quarantined: 0 });
    expect(ahead).toBeLessThanOrEqual(4);
    expect(peakBytes).toBeLessThanOrEqual(1000);
  });
});
