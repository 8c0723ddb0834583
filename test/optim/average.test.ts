// The exponential moving average of weights: its formula, its dtypes, its state.

import { describe, expect, it, test } from 'vitest';
import { SafetensorsFile, writeSafetensors } from '../../src/checkpoint/index.js';
import { EMA_OPTIONS, WeightAverage, adamw, emaDecay } from '../../src/optim/index.js';
import { z } from '../../src/schema.js';
import { liveTensors, noGrad, scope, tensor, type Tensor } from '../../src/tensor/index.js';
import { temporaryFolder } from '../train/job.js';

const values = (x: Tensor): number[] => scope(() => Array.from(x.to('float32').toTypedArray(), Number));
const averages = (average: WeightAverage): Record<string, number[]> =>
  Object.fromEntries(Array.from(average.named(), ([name, x]) => [name, values(x)]));
const set = (x: Tensor, to: readonly number[]): void =>
  scope(() => noGrad(() => void x.detach().copy_(tensor([...to], [to.length]))));

/** Weights of a run, an update each. */
const COURSE = [
  [2, -1],
  [4, 0.5],
  [-3, 8],
  [0.25, 8],
  [1, 1],
] as const;

describe('an average of weights', () => {
  it.each([
    { decay: 0.9, warmup: false, every: 1 },
    { decay: 0.5, warmup: false, every: 2 },
    { decay: 0.999, warmup: true, every: 1 },
    { decay: 0.2, warmup: true, every: 1 },
  ])('follows its formula from the first weights on: %o', ({ decay, warmup, every }) => {
    const weight = tensor([1, -2], [2]);
    const average = new WeightAverage([['w', weight]], { decay, warmup, every });
    const expected = [1, -2];
    let updates = 0;
    for (const [i, now] of COURSE.entries()) {
      set(weight, now);
      if (average.isDue(i + 1)) average.update();
      if ((i + 1) % every !== 0) continue;
      const d = warmup ? Math.min(decay, (1 + updates) / (10 + updates)) : decay;
      for (const k of [0, 1]) expected[k] = d * expected[k]! + (1 - d) * now[k]!;
      updates += 1;
    }
    expect(average.updates).toBe(updates);
    for (const [k, value] of averages(average)['w']!.entries()) expect(value).toBeCloseTo(expected[k]!, 5);
    expect(values(weight)).toEqual(COURSE.at(-1));
  });

  it('rises to its decay where it is warmed up', () => {
    const decays = [0, 1, 10, 80, 81, 1000].map((n) => emaDecay({ decay: 0.9, warmup: true }, n));
    expect(decays).toEqual([0.1, 2 / 11, 11 / 20, 0.9, 0.9, 0.9]);
    expect(emaDecay({ decay: 0.9 }, 0)).toBe(0.9);
  });

  it('of bfloat16 takes in what is smaller than the last bit, from masters where there are any', () => {
    const weight = tensor([1], [1], 'bfloat16');
    const average = new WeightAverage([['w', weight]], { decay: 0.999 });
    const byMaster = new WeightAverage([['w', weight]], { decay: 0.5 });
    set(weight, [1.0078125]); // the next bfloat16 after 1
    average.update();
    expect(averages(average)['w']![0]).toBeCloseTo(1 + 0.0078125 / 1000, 6);
    expect(averages(average)['w']![0]).toBeGreaterThan(1);
    expect(average.numBytes).toBe(4);
    const master = tensor([1.001], [1]);
    byMaster.update((name) => (name === 'w' ? master : undefined));
    expect(averages(byMaster)['w']![0]).toBeCloseTo(1.0005, 6);
  });

  it.each(['float32', 'bfloat16'] as const)(
    'stands in the place of %s weights while it is asked, and gives them back bit for bit',
    async (dtype) => {
      const weight = tensor([0.1, 3], [2], dtype);
      const average = new WeightAverage([['w', weight]], { decay: 0.5 });
      set(weight, [0.3, 5]);
      average.update();
      const [before, shadows] = [values(weight), averages(average)];
      const held = liveTensors();
      const seen = await average.inPlace(() => values(weight));
      expect(seen[1]).toBe(4);
      expect(seen[0]).toBeCloseTo(0.2, dtype === 'float32' ? 6 : 2);
      await expect(
        average.inPlace(() => {
          throw new Error('asked in vain');
        }),
      ).rejects.toThrow('asked in vain');
      expect([values(weight), averages(average)]).toEqual([before, shadows]);
      expect(liveTensors()).toBe(held);
    },
  );

  it('goes on from a file as if it had not stopped', async () => {
    const [weight, other] = [tensor([1, -2], [2]), tensor([1, -2], [2])];
    const average = new WeightAverage([['w', weight]], { decay: 0.9, warmup: true });
    for (const now of COURSE.slice(0, 3)) {
      set(weight, now);
      average.update();
    }
    const path = `${temporaryFolder()}/ema.safetensors`;
    await writeSafetensors(path, average.named());
    const again = new WeightAverage([['w', other]], { decay: 0.9, warmup: true });
    const file = new SafetensorsFile(path);
    again.load(file, average.updates);
    for (const now of COURSE.slice(3)) {
      for (const [one, of] of [
        [weight, average],
        [other, again],
      ] as const) {
        set(one, now);
        of.update();
      }
    }
    expect(averages(again)).toEqual(averages(average));
    const unlike = (name: string, shape: number[]) => () =>
      new WeightAverage([[name, tensor(new Float32Array(shape[0]!), shape)]], { decay: 0.9 }).load(file, 1);
    expect(unlike('v', [2])).toThrow(
      'average of weights: expected the weights that learn here, received 1 missing, 1 others: v, w',
    );
    expect(unlike('w', [3])).toThrow('expected w of shape [3], received [2]');
    file.close();
  });
});

test.each([0, 1, -0.1, 1.5, Number.NaN])('a decay of %d is refused', (decay) => {
  expect(() => new WeightAverage([], { decay })).toThrow(/ema: decay: /);
  expect(z.strictObject(EMA_OPTIONS).safeParse({ decay }).success).toBe(false);
});

test('an average of weights that an optimizer keeps in bfloat16 follows its masters', () => {
  const weight = tensor([1], [1], 'bfloat16');
  weight.requiresGrad = true;
  const optimizer = adamw({ lr: 1e-4, weightDecay: 0 })([['w', weight] as const]);
  const average = new WeightAverage([['w', weight]], { decay: 0.5 });
  for (let step = 0; step < 3; step++) {
    weight.grad = tensor([1], [1], 'bfloat16');
    optimizer.step();
    const masters = new Map(optimizer.namedState());
    average.update((name) => masters.get(`${name}.master`));
  }
  expect(values(weight)).toEqual([1]); // three updates of 1e-4 are below its last bit
  // 1 - 1e-4, 2e-4, 3e-4 with the weights 1/8, 1/4, 1/2
  expect(averages(average)['w']![0]).toBeCloseTo(1 - 1e-4 * (1 / 8 + 2 / 4 + 3 / 2), 6);
});
