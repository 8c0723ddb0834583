// Values of fixtures/reference/optim.json come from PyTorch: test/reference/optim.py.

import { describe, expect, test } from 'vitest';
import { type Optimizer, adamw, type AdamWOptions } from '../../src/optim/index.js';
import { isPart, part, withLeaf } from '../../src/parts.js';
import { parameter } from '../../src/nn/module.js';
import { decode, z } from '../../src/schema.js';
import { full, liveTensors, noGrad, scope, tensor, zeros, type Tensor } from '../../src/tensor/index.js';
import { reference } from './reference.js';
import { settledTensors } from '../live.js';

/** Tensors with the starting values of a reference case, converted to `dtype`. */
function startOf(start: readonly number[][], dtype: 'float32' | 'bfloat16' = 'float32'): Tensor[] {
  return start.map((values, i) => parameter(tensor(values, reference.shapes[i], dtype)));
}

/** The gradients of the reference: cos((i + 1) * (step + 1) * weight). */
function setGradients(parameters: readonly Tensor[], step: number): void {
  for (const [i, p] of parameters.entries()) {
    scope(() => {
      p.grad = noGrad(() =>
        p
          .detach()
          .mul((i + 1) * (step + 1))
          .cos(),
      );
    });
  }
}

describe('AdamW', () => {
  test.each(reference.adamw)('equals PyTorch after each of twelve steps, with $options', (wanted) => {
    const parameters = startOf(wanted.start);
    const { weight_decay, ...options } = wanted.options;
    const optimizer = adamw({
      ...(options as AdamWOptions),
      ...(weight_decay === undefined ? {} : { weightDecay: weight_decay }),
    })(parameters);
    for (let step = 0; step < 12; step++) {
      optimizer.lr = wanted.options.lr * (1 + step / 10);
      setGradients(parameters, step);
      if (step === 4) parameters[1]!.grad = null;
      optimizer.step();
      if (step % 3 !== 2) continue;
      for (const [i, expected] of wanted.after[(step - 2) / 3]!.entries()) {
        const received = parameters[i]!.toTypedArray() as Float32Array;
        for (const [j, value] of expected.entries())
          expect(Math.abs(received[j]! - value)).toBeLessThan(1e-6);
      }
    }
  });

  test('leaves tensors without a gradient alone and holds no state for them', () => {
    const [used, unused] = [parameter(full([2], 1)), parameter(full([2], 1))];
    const optimizer = adamw({ lr: 0.1 })([used, unused]);
    used.grad = full([2], 1);
    optimizer.step();
    expect(unused.toTypedArray()).toEqual(Float32Array.of(1, 1));
    expect([...optimizer.namedState(['used', 'unused'])].map(([name]) => name)).toEqual([
      'used.exp_avg',
      'used.exp_avg_sq',
      'used.step',
    ]);
  });

  test('zeroGrad forgets every gradient', () => {
    const p = parameter(full([2], 1));
    const optimizer = adamw({ lr: 0.1 })([p]);
    p.grad = full([2], 1);
    optimizer.zeroGrad();
    expect(p.grad).toBeNull();
    optimizer.step();
    expect(p.toTypedArray()).toEqual(Float32Array.of(1, 1));
  });

  test('decays everything, or matrices alone', () => {
    const decayed = (decay: 'all' | 'matrices'): number[] => {
      const [matrix, norm] = [parameter(full([2, 2], 1)), parameter(full([2], 1))];
      const optimizer = adamw({ lr: 0.1, weightDecay: 0.5, decay })([matrix, norm]);
      for (const p of [matrix, norm]) p.grad = zeros(p.shape);
      optimizer.step();
      return [matrix, norm].map((p) => Number(p.toTypedArray()[0]));
    };
    expect(decayed('all')).toEqual([Math.fround(0.95), Math.fround(0.95)]);
    expect(decayed('matrices')).toEqual([Math.fround(0.95), 1]);
  });

  test('leaks nothing over steps', async () => {
    const parameters = [parameter(full([3, 3], 1)), parameter(full([3], 1, { dtype: 'bfloat16' }))];
    const optimizer = adamw({ lr: 0.1 })(parameters);
    const step = (): void => {
      setGradients(parameters, 1);
      optimizer.step();
      optimizer.zeroGrad();
    };
    step();
    const before = await settledTensors();
    for (let i = 0; i < 10; i++) step();
    expect(liveTensors()).toBe(before);
    optimizer.dispose();
    expect(liveTensors()).toBe(before - 7);
  });
});

describe('bfloat16 weights', () => {
  test('do not lose updates smaller than their last bit', () => {
    const p = parameter(full([4], 1, { dtype: 'bfloat16' }));
    const optimizer = adamw({ lr: 1e-4, weightDecay: 0 })([p]);
    for (let step = 0; step < 100; step++) {
      p.grad = full([4], 1, { dtype: 'bfloat16' });
      optimizer.step();
    }
    // a hundred steps of 1e-4, each of which alone would be rounded away: bfloat16 has 1/256 below 1
    expect(p.dtype).toBe('bfloat16');
    expect(Number(p.toTypedArray()[0])).toBe(0.98828125);
    const master = new Map(optimizer.namedState()).get('0.master')!;
    expect(master.dtype).toBe('float32');
    expect(Number(master.toTypedArray()[0])).toBeCloseTo(0.99, 5);
  });

  test('follow float32 ones to within their rounding', () => {
    const [wanted] = reference.adamw;
    const [narrow, wide] = [startOf(wanted!.start, 'bfloat16'), startOf(wanted!.start, 'bfloat16')].map(
      (t, i) => (i === 0 ? t : t.map((p) => parameter(noGrad(() => p.detach().to('float32'))))),
    ) as [Tensor[], Tensor[]];
    const [a, b] = [adamw({ lr: 1e-2 })(narrow), adamw({ lr: 1e-2 })(wide)];
    for (let step = 0; step < 5; step++) {
      for (const [i, p] of narrow.entries()) {
        p.grad = full(p.shape, 0.5 * (i + 1), { dtype: 'bfloat16' });
        wide[i]!.grad = full(p.shape, 0.5 * (i + 1));
      }
      a.step();
      b.step();
    }
    for (const [i, p] of narrow.entries()) {
      expect(p.toTypedArray()).toEqual(
        scope(() => noGrad(() => wide[i]!.detach().to('bfloat16').toTypedArray())),
      );
    }
  });
});

describe('the state', () => {
  /** What was stored by name, as an open file gives it. */
  const sourceOf = (state: Iterable<[string, Tensor]>) => {
    const stored = new Map(Array.from(state, ([name, t]) => [name, t.clone()]));
    return { names: [...stored.keys()], read: (name: string) => stored.get(name)!.clone(), stored };
  };
  const make = (): { parameters: Tensor[]; optimizer: Optimizer } => {
    const parameters = [parameter(full([2, 2], 1)), parameter(full([2], 1, { dtype: 'bfloat16' }))];
    return { parameters, optimizer: adamw({ lr: 0.01 })(parameters) };
  };
  const names = ['matrix', 'norm'];

  test('loaded into another optimizer, goes on as if nothing had happened', () => {
    const one = make();
    for (let step = 0; step < 3; step++) {
      setGradients(one.parameters, step);
      one.optimizer.step();
    }
    const other = make();
    for (const [i, p] of other.parameters.entries()) noGrad(() => p.copy_(one.parameters[i]!));
    other.optimizer.loadState(sourceOf(one.optimizer.namedState(names)), names);
    for (const { parameters, optimizer } of [one, other]) {
      setGradients(parameters, 3);
      optimizer.step();
    }
    for (const [i, p] of other.parameters.entries()) {
      expect(p.toTypedArray()).toEqual(one.parameters[i]!.toTypedArray());
    }
    expect(Number(new Map(other.optimizer.namedState(names)).get('norm.step')!.item())).toBe(4);
  });

  test('that lacks a part, has another shape or is of others is refused and changes nothing', () => {
    const { parameters, optimizer } = make();
    setGradients(parameters, 0);
    optimizer.step();
    const before = new Map(optimizer.namedState(names)).get('matrix.exp_avg')!.toTypedArray();
    const load = (change: (stored: Map<string, Tensor>) => void): void => {
      const { stored } = sourceOf(optimizer.namedState(names));
      change(stored);
      optimizer.loadState({ names: [...stored.keys()], read: (name) => stored.get(name)!.clone() }, names);
    };
    expect(() => load((stored) => stored.delete('norm.master'))).toThrow(
      'optimizer state norm.master: expected a tensor of shape [2], received none; load the state of a run with the same weights and dtype',
    );
    expect(() => load((stored) => stored.set('matrix.exp_avg', zeros([3])))).toThrow(
      'optimizer state matrix.exp_avg: expected shape [2, 2], received [3]; load the state of a run with the same weights',
    );
    expect(() => load((stored) => stored.set('other.exp_avg', zeros([3])))).toThrow(
      'optimizer state: expected tensors of the weights that learn here, received 1 others: other.exp_avg; load the state of a run with the same weights and the same freeze',
    );
    expect(new Map(optimizer.namedState(names)).get('matrix.exp_avg')!.toTypedArray()).toEqual(before);
  });
});

describe('options', () => {
  test('out of range are refused, all at once, each with its name', () => {
    const options = {
      lr: 0,
      betas: [1, 0.9],
      eps: -1,
      weightDecay: Number.NaN,
      typo: 1,
    } as unknown as AdamWOptions;
    expect(() => adamw(options)([])).toThrow(
      /adamw: lr: .*received 0.*\n.*betas\.0.*\n.*eps.*-1.*\n.*weightDecay/,
    );
    expect(() => adamw(options)([])).toThrow(/adamw: typo: expected a known key, received an unknown one/);
    for (const lr of [Number.NaN, -1, Infinity]) expect(() => adamw({ lr })([])).toThrow(/adamw: lr: /);
  });

  test('of a tensor given twice are refused', () => {
    const p = parameter(zeros([1]));
    expect(() => adamw({ lr: 1 })([p, p])).toThrow(
      'expected each tensor once, received one that is given twice',
    );
  });

  test('are a part of a pipeline file, whose leaves can be overridden and are checked with their path', () => {
    const spec = { optimizer: adamw({ lr: 1e-3 }) };
    expect(isPart(spec.optimizer, 'optimizer')).toBe(true);
    const schema = z.strictObject({ optimizer: part('optimizer') });
    expect(decode(schema, withLeaf(spec, 'optimizer.lr', 2e-5), 'file').optimizer).toMatchObject({
      kind: 'adamw',
      lr: 2e-5,
      betas: [0.9, 0.999],
    });
    expect(() => decode(schema, withLeaf(spec, 'optimizer.lr', -1), 'file')).toThrow(
      /^file: optimizer\.lr: .*-1/,
    );
  });
});
