// Sounds by formula, so that nothing of them has to be stored: the same float32 samples as test/reference/waves.py makes.

export interface WaveSpec {
  readonly kind: 'silence' | 'constant' | 'impulse' | 'noise' | 'tone' | 'chirp' | 'voice';
  readonly samples: number;
  readonly rate?: number;
  readonly seed?: number;
  readonly hz?: number;
  /** A chirp's last frequency. */
  readonly to?: number;
  readonly level?: number;
}

/** Numbers in [-1, 1): x' = 1664525 x + 1013904223 mod 2^32. */
function lcg(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** [samples] */
export function wave(spec: WaveSpec): Float32Array {
  const { kind, samples, rate = 16_000, seed = 1, hz = 440, to = 4000, level = 0.5 } = spec;
  const noise = lcg(seed);
  const turn = 2 * Math.PI;
  const seconds = samples / rate;
  const at = {
    silence: () => 0,
    constant: () => level,
    impulse: (_t: number, i: number) => (i === samples >> 1 ? level : 0),
    noise: () => level * noise(),
    tone: (t: number) => level * Math.sin(turn * hz * t),
    chirp: (t: number) => level * Math.sin(turn * (hz * t + ((to - hz) / (2 * seconds)) * t * t)),
    // a buzz that comes and goes, over noise, in 16 bits
    voice: (t: number) => {
      let buzz = 0;
      for (let h = 1; h < 9; h++) buzz += Math.sin(turn * hz * h * t) / h;
      const swell = 0.5 - 0.5 * Math.cos(turn * 3 * t);
      return Math.floor((level * 0.5 * buzz * swell + 0.003 * noise()) * 32767 + 0.5) / 32768;
    },
  }[kind];
  return Float32Array.from({ length: samples }, (_, i) => at(i / rate, i));
}
