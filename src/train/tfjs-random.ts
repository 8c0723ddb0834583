// TensorFlow.js draws from Math.random wherever it is given no seed: initial weights, dropout. While the model is built and
// trained, Math.random is a generator whose state a checkpoint keeps, so that a run can be repeated and continued.

/** A generator of 32 bits of state (mulberry32, Tommy Ettinger). */
export class GuestRandom {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  get state(): string {
    return String(this.#state);
  }
  set state(state: string) {
    this.#state = Number(state) >>> 0;
  }

  /** Runs `work`, which draws from here; it must not wait for anything, so that nobody else does.  */
  during<T>(work: () => T): T {
    const { random } = Math;
    Math.random = () => this.#next();
    try {
      return work();
    } finally {
      Math.random = random;
    }
  }

  /** Uniform in [0, 1). */
  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  }
}
