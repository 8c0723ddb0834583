// The pool that CPU tensors take their memory from.

import { describe, expect, it } from 'vitest';
import { type Tensor, empty, ones, scope } from '../../src/tensor/index.js';

const MiB = 2 ** 20;

/** Pages that the kernel had to find for `body`. */
function pageFaults(body: () => void): number {
  const before = process.resourceUsage().minorPageFault;
  body();
  return process.resourceUsage().minorPageFault - before;
}

describe('the memory of tensors', () => {
  it('is used again instead of asking the kernel for pages', () => {
    const work = (): void => scope(() => void ones([48 * MiB], { dtype: 'uint8' }));
    work();
    expect(pageFaults(() => Array.from({ length: 10 }, work))).toBeLessThan(1000); // 12,288 pages each
  });

  it('serves tensors of about the same size', () => {
    const work = (bytes: number): void => scope(() => void ones([bytes], { dtype: 'uint8' }));
    work(48 * MiB);
    expect(pageFaults(() => [47, 44, 40, 48].forEach((size) => work(size * MiB)))).toBeLessThan(1000);
  });

  it('never gives one block to two tensors', () => {
    scope(() => {
      const made: Tensor[] = [];
      for (let i = 0; i < 64; i++) {
        made.push(ones([64 * 1024 + 977 * i]).mul_(i));
        if (i % 3 === 2) made.splice(i % made.length, 1)[0]?.dispose();
      }
      for (const tensor of made) {
        const value = tensor.select(0, 0).item();
        expect(tensor.sub(value).abs().amax().item()).toBe(0);
      }
    });
  });

  it('keeps no more than was once in use and a quarter more', () => {
    const before = process.memoryUsage.rss();
    for (let size = 20; size < 120; size++) scope(() => void ones([size * MiB], { dtype: 'uint8' }));
    // The sum is 6.9 GB; the most at once 119 MiB, or what earlier tests took, and 64 MiB to begin with.
    expect(process.memoryUsage.rss() - before).toBeLessThan(400 * MiB);
  });

  it('is aligned for the widest instructions, also in small tensors', () => {
    for (const size of [1, 100, 16_383, 16_384, 1_000_000]) {
      scope(() => expect(ones([size]).sum().item()).toBe(size));
    }
    scope(() => expect(empty([0]).numel).toBe(0));
  });

  it('says how much was asked for when there is no more', () => {
    expect(() => empty([2 ** 46], { dtype: 'uint8' })).toThrow(
      'expected 70368744177664 bytes of memory for a tensor, received none: the machine has no more',
    );
  });
});
