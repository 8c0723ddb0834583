// Uniform random numbers that a seed fixes: Chris Doty-Humphrey's sfc32 (128 bits of state), 53 bits a number.

/** @param seed of 53 bits @param stream another one gives other numbers of the same seed
 *  @returns numbers on [0, 1), one a call */
export function uniform(seed: number, stream: number): () => number {
  let [a, b, c, counter] = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0, stream >>> 0, 1];
  const next = (): number => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let i = 0; i < 20; i++) next(); // until seeds that differ in one bit differ in all
  return () => (next() * 2 ** 21 + (next() >>> 11)) / 2 ** 53;
}
