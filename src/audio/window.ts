// The periodic Hann window in single precision, w[n] = (1 - cos(2 pi n / N)) / 2, to the bit as the reference's numpy has it.
// Where a pure tone leaves nothing in a mel bin, the logarithm shows the window's rounding: one whose cosines are rounded
// better is up to 0.05 away from the reference there. So the cosine is numpy's: Cody and Waite's reduction to a quadrant,
// then a polynomial of degree 8 or 9, each step a fused multiply-add in float32.

const round = Math.fround;

/** a b + c, rounded once: the product of two float32 is exact in double precision. */
const fused = (a: number, b: number, c: number): number => round(a * b + c);

const TWO_OVER_PI = round(2 / Math.PI);
/** Adding it rounds a float32 to a whole number. */
const MAGIC = 1.5 * 2 ** 23;
/** -pi / 2 in three float32, the sum of which is exact enough for large quadrants. */
const HALF_PI_PARTS = [-0x1921fb0 / 2 ** 24, -0x15110b4 / 2 ** 46, -0x1846988 / 2 ** 72];
/** From the highest power of x^2 down. */
const COSINE = [0x198e616 / 2 ** 40, -0x16c06dc / 2 ** 34, 0x155553c / 2 ** 29, -0.5, 1];
const SINE = [0x17d3bbc / 2 ** 43, -0x1a06bba / 2 ** 37, 0x111119a / 2 ** 31, -0x1555556 / 2 ** 27, 0];

/** @returns [length] */
export function hannWindow(length: number): Float32Array {
  const turn = round(2 * Math.PI);
  return Float32Array.from({ length }, (_, n) =>
    round(0.5 * round(1 - cosine(round(round(turn * n) / length)))),
  );
}

/** The cosine of a float32 angle of a few turns. */
function cosine(angle: number): number {
  const quadrant = round(fused(angle, TWO_OVER_PI, MAGIC) - MAGIC);
  const rest = HALF_PI_PARTS.reduce((sum, part) => fused(quadrant, part, sum), angle);
  const square = round(rest * rest);
  const polynomial = (coefficients: readonly number[]): number =>
    coefficients.reduce((sum, coefficient) => fused(sum, square, coefficient));
  const value = quadrant % 2 === 0 ? polynomial(COSINE) : fused(polynomial(SINE), rest, rest);
  return quadrant % 4 === 1 || quadrant % 4 === 2 ? -value : value;
}
