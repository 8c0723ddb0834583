import { Observable } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { map, type Stage, type Ticketed } from '../../src/flow/index.js';
import { testFlow } from '../../src/testing/index.js';

describe('a stage of one’s own that holds samples', () => {
  /** Lets two samples change places when the first is the bigger one; it parks the one that it keeps. */
  function swap(parks = true): Stage<number, number> {
    return {
      name: 'swap',
      holdsItems: 2,
      reproducible: true,
      connect: (source) =>
        new Observable((subscriber) => {
          let kept: Ticketed<number> | undefined;
          return source.subscribe({
            next: (item) => {
              if (kept === undefined) {
                kept = item;
                if (parks) item.ticket.park();
                return;
              }
              kept.ticket.unpark();
              const [low, high] = kept.value <= item.value ? [kept, item] : [item, kept];
              kept = undefined;
              subscriber.next(low);
              subscriber.next(high);
            },
            error: (error: unknown) => subscriber.error(error),
            complete: () => {
              if (kept !== undefined) subscriber.next(kept);
              subscriber.complete();
            },
          });
        }),
    };
  }
  const values = { a: 1, b: 2, c: 3 };

  it('holds one until the next comes, within the pool', () =>
    testFlow({
      source: '   b-a-c-|',
      values,
      poolBytes: 2,
      consumeMs: 4,
      stages: [swap()],
      expect: {
        values: ' --(ab)----(c|)',
        taken: '  --a---b---c---|',
        pool: '   1.2.......1...0',
        peakBytes: 2,
      },
    }));

  it('is told the numbers when the pool has no room for what it holds', async () => {
    await expect(testFlow({ source: 'ab|', values, poolBytes: 1, stages: [swap()] })).rejects.toThrow(
      'pool of 1 bytes: expected at least 2 bytes, since swap holds up to 2 items of up to 1 bytes',
    );
    // Not declared, it comes to light as it happens.
    const { holdsItems: _, ...undeclared } = swap();
    await expect(
      testFlow({ source: 'ab|', values, poolBytes: 1, maxItemBytes: false, stages: [undeclared] }),
    ).rejects.toThrow('received 1 samples of 1 bytes that wait for more in swap (1); raise poolBytes');
  });

  it('is found out when it does not park what it keeps', async () => {
    const { holdsItems: _, ...silent } = swap(false);
    await expect(testFlow({ source: 'ab|', values, poolBytes: 1, stages: [silent] })).rejects.toThrow(
      /^nothing moves any more after 0 ms: swap has a;/,
    );
  });
});

describe('an asynchronous map', () => {
  it('is tested in virtual time too, with its signal', () => {
    const aborted: number[] = [];
    const slow = map(
      async (n: number, { signal }) => {
        signal.addEventListener('abort', () => aborted.push(n));
        await new Promise((resolve) => setTimeout(resolve, n));
        return n;
      },
      { name: 'slow' },
    );
    return testFlow({
      source: ' ab|',
      values: { a: 3, b: 30 },
      cancel: '------!',
      stages: [slow],
      expect: { values: '---a', tickets: { a: 'trained', b: 'dropped in slow' } },
    }).then(() => expect(aborted).toEqual([30]));
  });
});
