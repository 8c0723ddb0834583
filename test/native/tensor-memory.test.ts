import { describe, expect, it } from 'vitest';
import { scope, tensorMemory, zeros } from '../../src/tensor/index.js';

describe('tensorMemory', () => {
  it('counts what tensors take, and the most that they came to', () => {
    const before = tensorMemory({ restart: true }).used;
    const kept = zeros([1000]);
    scope(() => void zeros([1_000_000]));
    const { used, most } = tensorMemory();
    expect(used - before).toBe(4000);
    expect(most - before).toBeGreaterThanOrEqual(4_004_000);
    expect(most - before).toBeLessThan(4_010_000);
    kept.dispose();
    tensorMemory({ restart: true });
    expect(tensorMemory()).toEqual({ used: before, most: before });
  });
});
