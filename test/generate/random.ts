// Whole numbers that a seed fixes, for tests.

import { uniform } from '../../src/generate/random.js';

/** @returns a function that draws from 0 up to, but not including, its argument */
export function randomOf(seed: number): (below: number) => number {
  const next = uniform(seed, 0);
  return (below) => Math.floor(next() * below);
}
