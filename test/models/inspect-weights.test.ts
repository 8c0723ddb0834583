import { join } from 'node:path';
import { beforeAll, describe, expect, it, test } from 'vitest';
import { inspectCheckpoint } from '../../src/models/gemma3n/index.js';
import { noGrad, op, randn, setNumThreads, zeros, type Tensor } from '../../src/tensor/index.js';
import { changedCopy } from './load-files.js';
import { referencePath } from './text-reference.js';

beforeAll(() => setNumThreads(1));

const fill = op('aten::fill_.Scalar');
const set = (tensor: Tensor, row: number, value: number): void =>
  void noGrad(() => fill(tensor.view([-1]).narrow(0, row, 1), value));

const weightsOf = async (folder: string) => {
  const { weights } = await inspectCheckpoint(folder);
  if (!weights) throw new Error('no weights');
  return weights;
};

test('a sound checkpoint has nothing odd', async () => {
  const weights = await weightsOf(referencePath('text-sharing'));
  expect(weights).toMatchObject({ files: 1, dead: [], zero: [], zeroRows: [], notFinite: [], outliers: [] });
  expect(weights.dtypes).toEqual([
    {
      dtype: 'F32',
      tensors: expect.any(Number) as number,
      parameters: weights.bytes / 4,
      bytes: weights.bytes,
    },
  ]);
});

test('a configuration without weights tells nothing of them, nor when they are not wanted', async () => {
  expect(
    (await inspectCheckpoint(join(referencePath('text-sharing'), 'config.json'))).weights,
  ).toBeUndefined();
  const { weights } = await inspectCheckpoint(referencePath('text-sharing'), { weights: false });
  expect(weights).toBeUndefined();
});

describe('weights', () => {
  const up = 'model.layers.2.mlp.up_proj.weight';

  it('of sharing layers are named dead, zero or not, and warned about nowhere else', async () => {
    const [k, v] = ['k_proj', 'v_proj'].map((name) => `model.layers.5.self_attn.${name}.weight`);
    const weights = await weightsOf(
      await changedCopy('text-sharing', (tensors) => {
        tensors.set(k!, zeros([16, 32]));
        tensors.set(v!, randn([16, 32]));
      }),
    );
    expect(weights.dead).toEqual([
      { name: k, parameters: 512, isZero: true },
      { name: v, parameters: 512, isZero: false },
    ]);
    expect(weights.zero).toEqual([]);
  });

  it('that are zero throughout, or in some rows, are named', async () => {
    const weights = await weightsOf(
      await changedCopy('text-sharing', (tensors) => {
        tensors.get(up)!.zero_();
        tensors.get('model.layers.3.mlp.gate_proj.weight')!.narrow(0, 4, 3).zero_();
      }),
    );
    expect(weights.zero).toEqual([up]);
    expect(weights.zeroRows).toEqual([{ name: 'model.layers.3.mlp.gate_proj.weight', rows: 3, of: 48 }]);
  });

  it('that are no numbers are counted', async () => {
    const weights = await weightsOf(
      await changedCopy('text-sharing', (tensors) => {
        const tensor = tensors.get(up)!;
        set(tensor, 0, NaN);
        set(tensor, 33, NaN);
        set(tensor, 70, -Infinity);
        set(tensors.get('model.norm.weight')!, 1, Infinity);
      }),
    );
    expect(weights.notFinite).toEqual(
      expect.arrayContaining([
        { name: up, nan: 2, infinite: 1 },
        { name: 'model.norm.weight', nan: 0, infinite: 1 },
      ]),
    );
    expect(weights.notFinite).toHaveLength(2);
  });

  it('far larger or smaller than in other layers are outliers, with how much', async () => {
    const [large, small] = [1, 4].map((layer) => `model.layers.${layer}.laurel.linear_left.weight`);
    const weights = await weightsOf(
      await changedCopy('text-sharing', (tensors) => {
        noGrad(() => tensors.set(large!, tensors.get(large!)!.mul(1e25)));
        noGrad(() => tensors.set(small!, tensors.get(small!)!.mul(1e-30)));
      }),
    );
    expect(weights.outliers.map(({ name }) => name).sort()).toEqual([large, small]);
    const found = weights.outliers.find(({ name }) => name === large)!;
    expect(found.ratio).toBeGreaterThan(5e24);
    expect(found.ratio).toBeLessThan(2e25);
    expect(found.rms / found.median).toBeCloseTo(found.ratio);
    expect(weights.notFinite).toEqual([]);
  });

  it('of several dtypes are told apart, each of any layout by its own name', async () => {
    const weights = await weightsOf(
      await changedCopy(
        'text-sharing',
        (tensors) =>
          new Map(
            [...tensors].map(([name, tensor]) => [
              name.replace(/^model\./, ''),
              name.includes('norm') ? tensor : tensor.to('bfloat16'),
            ]),
          ),
      ),
    );
    expect(weights.dtypes.map(({ dtype }) => dtype)).toEqual(['BF16', 'F32']);
    expect(weights.bytes).toBe(weights.dtypes[0]!.parameters * 2 + weights.dtypes[1]!.parameters * 4);
  });

  it('that do not belong to the configuration are an error', async () => {
    const folder = await changedCopy('text-sharing', (tensors) => void tensors.delete(up));
    await expect(inspectCheckpoint(folder)).rejects.toThrow('weights that lack 1 tensor');
    expect((await inspectCheckpoint(folder, { weights: false })).parameters.live).toBeGreaterThan(0);
  });

  it('are no longer read when it is stopped', async () => {
    const signal = AbortSignal.abort(new Error('stopped'));
    await expect(inspectCheckpoint(referencePath('text-sharing'), { signal })).rejects.toThrow('stopped');
  });
});
