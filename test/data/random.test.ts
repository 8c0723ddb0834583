import { describe, expect, test } from 'vitest';
import { permutation, random } from '../../src/data/random.js';

const draw = (n: number, ...keys: number[]): number[] => {
  const generator = random(...keys);
  return Array.from({ length: n }, () => generator.uint32());
};

describe('random', () => {
  test('the same keys give the same numbers on every machine', () => {
    expect(draw(4, 42, 0)).toEqual([1072944717, 2962364172, 865544266, 831500606]);
  });

  test('every key, its place and its upper half matter', () => {
    const streams = [
      draw(4),
      draw(4, 0),
      draw(4, 0, 0),
      draw(4, 1),
      draw(4, 0, 1),
      draw(4, 1, 0),
      draw(4, 2 ** 32),
    ];
    expect(new Set(streams.map(String)).size).toBe(streams.length);
  });

  test('below(n) is uniform', () => {
    const generator = random(7);
    const counts = new Array<number>(10).fill(0);
    for (let i = 0; i < 100_000; i++) counts[generator.below(10)]!++;
    // Chi-squared with 9 degrees of freedom: above 33.7 once in 10,000.
    expect(counts.reduce((sum, n) => sum + (n - 10_000) ** 2 / 10_000, 0)).toBeLessThan(33.7);
  });
});

describe('permutation', () => {
  test('holds every number once', () => {
    expect([...permutation(1000, random(1))].sort((a, b) => a - b)).toEqual([...Array(1000).keys()]);
    expect([...permutation(0, random(1))]).toEqual([]);
    expect([...permutation(1, random(1))]).toEqual([0]);
  });

  test('puts every element anywhere equally often', () => {
    const counts = new Map<string, number>();
    for (let seed = 0; seed < 6000; seed++) {
      const order = String(permutation(3, random(seed)));
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    // Chi-squared with 5 degrees of freedom: above 25.7 once in 10,000.
    expect([...counts.values()].reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0)).toBeLessThan(25.7);
  });
});
