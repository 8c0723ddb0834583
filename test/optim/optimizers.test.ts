// Values of fixtures/reference/optimizers.json come from PyTorch, or from the papers' formulas: test/reference/optimizers.py.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parameter } from '../../src/nn/module.js';
import {
  adamw,
  dynamicMap,
  optimizerOf,
  orthogonalised,
  type Optimizer,
  type OptimizerOptions,
} from '../../src/optim/index.js';
import {
  liveTensors,
  manualSeed,
  noGrad,
  scope,
  tensor,
  type DType,
  type Tensor,
} from '../../src/tensor/index.js';

interface Case {
  readonly options: Record<string, unknown>;
  readonly shapes: number[][];
  readonly start: number[][];
  readonly after: number[][][];
  /** After four steps in float64. */
  readonly wide: number[][];
}
type Kind = 'adafactor' | 'sgd' | 'muon' | 'lion' | 'adamw8bit';

const reference = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../fixtures/reference/optimizers.json'), 'utf8'),
) as Record<Kind, Case[]> & { readonly maps: { readonly signed: number[]; readonly unsigned: number[] } };

const KINDS: readonly Kind[] = ['adafactor', 'sgd', 'muon', 'lion', 'adamw8bit'];
/** Muon's matrices are in bfloat16, whose products round by the order of their sums. */
const TOLERANCE: Readonly<Record<Kind, number>> = {
  adafactor: 2e-6,
  sgd: 2e-6,
  muon: 2e-3,
  lion: 2e-6,
  adamw8bit: 5e-6,
};

function startOf({ shapes, start }: Case, dtype: DType = 'float32'): Tensor[] {
  return start.map((values, i) => parameter(tensor(values, shapes[i], dtype)));
}

function make(kind: Kind, { options }: Case, parameters: readonly Tensor[]): Optimizer {
  return optimizerOf({ kind, ...options } as OptimizerOptions, parameters);
}

/** cos((i + 1) * (step + 1) * weight) */
function setGradients(parameters: readonly Tensor[], step: number, factor = 1): void {
  for (const [i, p] of parameters.entries()) {
    scope(() => {
      p.grad = noGrad(() =>
        p
          .detach()
          .mul((i + 1) * (step + 1))
          .cos()
          .mul(factor),
      );
    });
  }
}

function valuesOf(parameters: readonly Tensor[]): number[][] {
  return parameters.map((p) => Array.from(p.toTypedArray(), Number));
}

function largestDifference(a: readonly number[][], b: readonly number[][]): number {
  return Math.max(...a.flatMap((row, i) => row.map((value, j) => Math.abs(value - b[i]![j]!))));
}

const cases = KINDS.flatMap((kind) =>
  reference[kind].map((wanted) => ({ kind, wanted, text: JSON.stringify(wanted.options) })),
);

describe('twelve steps', () => {
  test.each(cases)('of $kind equal the reference, with $text', ({ kind, wanted }) => {
    const parameters = startOf(wanted);
    const optimizer = make(kind, wanted, parameters);
    for (let step = 0; step < 12; step++) {
      setGradients(parameters, step);
      optimizer.step();
      if (step % 4 !== 3) continue;
      const difference = largestDifference(wanted.after[(step - 3) / 4]!, valuesOf(parameters));
      expect(difference).toBeLessThan(TOLERANCE[kind]);
    }
    expect(largestDifference(wanted.start, valuesOf(parameters))).toBeGreaterThan(0.01);
  });

  test.each(cases)(
    'of $kind by float64 weights, which no kernel takes, equal the reference’s: $text',
    ({ kind, wanted }) => {
      const parameters = startOf(wanted, 'float64');
      const optimizer = make(kind, wanted, parameters);
      for (let step = 0; step < 4; step++) {
        setGradients(parameters, step);
        optimizer.step();
      }
      expect(largestDifference(wanted.wide, valuesOf(parameters))).toBeLessThan(TOLERANCE[kind]);
    },
  );

  test.each(cases)(
    'of $kind with scaled gradients equal those of smaller ones: $text',
    ({ kind, wanted }) => {
      const [scaled, small] = [startOf(wanted), startOf(wanted)];
      const [a, b] = [make(kind, wanted, scaled), make(kind, wanted, small)];
      for (let step = 0; step < 3; step++) {
        setGradients(scaled, step);
        setGradients(small, step, 0.25);
        a.step({ scale: 0.25 });
        b.step();
      }
      expect(valuesOf(scaled)).toEqual(valuesOf(small));
    },
  );

  test.each(cases)('of $kind leak nothing, and its state takes what it says: $text', ({ kind, wanted }) => {
    const parameters = startOf(wanted, 'bfloat16');
    const optimizer = make(kind, wanted, parameters);
    const step = (): void => {
      setGradients(parameters, 1);
      optimizer.step();
      optimizer.zeroGrad();
    };
    step();
    const bytes = Array.from(optimizer.namedState(), ([, t]) => t.numBytes).reduce((a, b) => a + b, 0);
    expect(optimizer.stateBytes).toBe(bytes);
    const before = liveTensors();
    for (let i = 0; i < 3; i++) step();
    expect(liveTensors()).toBeLessThanOrEqual(before);
  });

  test.each(cases)('of $kind go on from a state as if without a break: $text', ({ kind, wanted }) => {
    const [one, other] = [startOf(wanted, 'bfloat16'), startOf(wanted, 'bfloat16')];
    const [a, b] = [make(kind, wanted, one), make(kind, wanted, other)];
    for (let step = 0; step < 3; step++) {
      setGradients(one, step);
      a.step();
    }
    for (const [i, p] of other.entries()) noGrad(() => p.copy_(one[i]!));
    const stored = new Map(a.namedState());
    b.loadState({ names: [...stored.keys()], read: (name) => stored.get(name)!.clone() });
    for (const [parameters, optimizer] of [[one, a] as const, [other, b] as const]) {
      setGradients(parameters, 3);
      optimizer.step();
    }
    expect(valuesOf(other)).toEqual(valuesOf(one));
  });
});

test('the dynamic map is the paper’s', () => {
  for (const [signed, wanted] of [
    [true, reference.maps.signed] as const,
    [false, reference.maps.unsigned] as const,
  ]) {
    const map = dynamicMap(signed);
    expect(map).toHaveLength(256);
    for (const [i, value] of map.entries()) expect(Math.abs(value - wanted[i]!)).toBeLessThan(1e-7);
  }
});

test('Newton-Schulz steps bring all singular values near one', () => {
  const matrix = tensor([3, 0.2, -1, 0.5, 2, 0.1], [2, 3]);
  const gram = scope(() => {
    const x = orthogonalised(matrix, 5).to('float32');
    return x.matmul(x.transpose(0, 1)).toTypedArray();
  });
  for (const i of [0, 3]) expect(Number(gram[i])).toBeGreaterThan(0.4);
  for (const i of [0, 3]) expect(Number(gram[i])).toBeLessThan(1.6);
  expect(Math.abs(Number(gram[1]))).toBeLessThan(0.3);
});

test('8-bit state takes a quarter of a wide one for large tensors, and small ones keep theirs', () => {
  const [large, small] = [parameter(tensor(new Float32Array(8192), [64, 128])), parameter(tensor([1, 2]))];
  const optimizer = optimizerOf({ kind: 'adamw8bit', lr: 1e-3 }, [large, small]);
  expect(optimizer.stateBytes).toBe(2 * 8192 + 2 * 4 * 32 + 4 + (2 * 2 * 4 + 4));
});

describe('stochastic rounding', () => {
  const steps = (
    rounding: 'nearest' | 'stochastic',
    seed: number,
    kind: 'adamw' | 'lion' | 'adamw8bit' = 'adamw',
  ) => {
    manualSeed(seed);
    const p = parameter(tensor(new Float32Array(4099).fill(1), [4099], 'bfloat16'));
    const optimizer = optimizerOf({ kind, lr: 1e-4, weightDecay: 0, rounding }, [p]);
    for (let i = 0; i < 50; i++) {
      p.grad = tensor(new Float32Array(4099).fill(1), [4099], 'bfloat16');
      optimizer.step();
    }
    return { values: Array.from(p.toTypedArray(), Number), optimizer };
  };

  test.each(['adamw', 'lion', 'adamw8bit'] as const)('of %s loses no small updates on average', (kind) => {
    const { values, optimizer } = steps('stochastic', 1, kind);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    expect(mean).toBeCloseTo(1 - 50 * 1e-4, 3); // each is a 40th of a bfloat16's last bit below 1
    expect(new Set(values).size).toBeGreaterThan(2);
    expect(
      Array.from(optimizer.namedState(), ([name]) => name).filter((name) => name.endsWith('master')),
    ).toEqual([]);
  });

  test('is the same from the same seed, and another from another', () => {
    const [one, same, other] = [1, 1, 2].map((seed) => steps('stochastic', seed).values);
    expect(same).toEqual(one);
    expect(other).not.toEqual(one);
  });

  test('is refused for float16', () => {
    const p = parameter(tensor([1], [1], 'float16'));
    expect(() => adamw({ lr: 1, rounding: 'stochastic' })([p])).toThrow(
      "adamw: rounding: expected 'nearest' for float16, received 'stochastic' for a tensor of float16",
    );
  });
});

describe('the state of another optimizer', () => {
  test.each([
    ['lion', 'momentum'],
    ['adafactor', 'row_var, col_var'],
    ['adamw8bit', 'exp_avg_8bit, exp_avg_sq_8bit, exp_avg_max, exp_avg_sq_max'],
  ] as const)('%s, is refused by name', (kind, parts) => {
    const p = parameter(tensor([1, 2, 3, 4], [2, 2]));
    const other = optimizerOf({ kind, lr: 0.1, ...(kind === 'adamw8bit' && { minSize: 0 }) }, [p]);
    setGradients([p], 0);
    other.step();
    const stored = new Map(other.namedState());
    const load = () =>
      adamw({ lr: 1 })([p]).loadState({
        names: [...stored.keys()],
        read: (name) => stored.get(name)!.clone(),
      });
    expect(load).toThrow(
      `optimizer state: expected that of adamw, received that of another optimizer, or of other options, with ${parts}; continue with the optimizer of the checkpoint`,
    );
  });
});

test('an optimizer of no kind is refused with the kinds there are', () => {
  expect(() => optimizerOf({ kind: 'adam', lr: 1 } as never, [])).toThrow(
    'step.optimizer: expected adamw, adamw8bit, adafactor, lion, muon, sgd, received adam',
  );
});
