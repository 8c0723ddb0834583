// Orders that depend on nothing but their keys, such as (seed, epoch): the same on every machine and Node.
// xoshiro128** (Blackman and Vigna, 2018), its state filled by splitmix32 from the keys.

export interface Random {
  /** Uniform in [0, 2^32). */
  uint32(): number;
  /** A uniform integer in [0, n), without modulo bias; n from 1 to 2^32. */
  below(n: number): number;
}

/** A generator that the keys determine: integers from 0 to 2^53 - 1, order matters. */
export function random(...keys: readonly number[]): Random {
  const state = new Uint32Array(4);
  let mixed = 0x9e3779b9;
  const words = keys.flatMap((key) => [key >>> 0, Math.floor(key / 2 ** 32) >>> 0]);
  for (const word of [...words, keys.length]) mixed = splitmix32(mixed ^ word);
  for (let i = 0; i < 4; i++) {
    mixed = (mixed + 0x9e3779b9) >>> 0;
    state[i] = splitmix32(mixed);
  }
  let [a, b, c, d] = state as unknown as [number, number, number, number];

  function uint32(): number {
    const result = Math.imul(rotateLeft(Math.imul(b, 5), 7), 9) >>> 0;
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = rotateLeft(d, 11);
    return result;
  }

  function below(n: number): number {
    const limit = 2 ** 32 - (2 ** 32 % n);
    for (;;) {
      const word = uint32();
      if (word < limit) return word % n;
    }
  }

  return { uint32, below };
}

/** The numbers 0 to n - 1 in random order (Fisher and Yates). @returns uint32 [n] */
export function permutation(n: number, generator: Random): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = generator.below(i + 1);
    const held = order[i]!;
    order[i] = order[j]!;
    order[j] = held;
  }
  return order;
}

function splitmix32(word: number): number {
  let z = (word + 0x9e3779b9) >>> 0;
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
  return (z ^ (z >>> 16)) >>> 0;
}

function rotateLeft(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}
