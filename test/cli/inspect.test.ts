import { spawnSync } from 'node:child_process';
import { cpSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { inspectionText } from '../../src/cli/inspection.js';
import { inspectCheckpoint, type Inspection } from '../../src/models/gemma3n/index.js';
import { randn, zeros } from '../../src/tensor/index.js';
import { changedCopy, temporaryFolder } from '../models/load-files.js';
import { readJson, referencePath } from '../models/text-reference.js';

const inPackage = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const e2b = inPackage('fixtures/configs/gemma-3n-E2B.json');

function pipe(...args: string[]) {
  const command = [inPackage('dist/cli/pipe.js'), ...args];
  const options = { encoding: 'utf8', cwd: inPackage('.') } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, command, options);
  return { status, stdout, stderr };
}

describe('pipe inspect', () => {
  it('shows parameters, layers and memory of a configuration alone', () => {
    const { status, stdout, stderr } = pipe('inspect', e2b, '--length', '2048', '--freeze', 'vision');
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(stdout).toMatch(/^all +5,439,438,272 +5\.44B /m);
    expect(stdout).toMatch(/^effective +1,905,495,648 +1\.91B /m);
    expect(stdout).toMatch(/^20 +sliding 512 +of 18 +8192 +-$/m);
    expect(stdout).toMatch(/^inference +10\.84 GB +- +- .* 33\.6 MB/m);
    expect(stdout).toContain('for 1 x 2048 tokens in bfloat16');
    expect(stdout).toContain('vision frozen');
    expect(stdout).not.toContain('dtype  ');
  });

  it('shows an adapter, and the model that it belongs to', () => {
    const { status, stdout, stderr } = pipe('inspect', 'fixtures/audio-lora-begun');
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(stdout).toMatch(/^LoRA adapter of fixtures\/tiny-gemma3n: rank 16, alpha 96$/m);
    expect(stdout).toMatch(/^[\d,]+ parameters beside \d+ modules: .*q_proj \(\d+\)/m);
    expect(stdout).toMatch(/^all +1,\d{3},\d{3}/m);
    const { adapter, weights } = JSON.parse(
      pipe('inspect', 'fixtures/audio-lora-begun', '--json').stdout,
    ) as Inspection;
    expect(weights).toBeUndefined();
    expect(adapter).toMatchObject({ kind: 'lora', base: 'fixtures/tiny-gemma3n' });
    expect(adapter!.parameters).toBeGreaterThan(10_000);
  });

  it('--json prints the same as one object, of weights too', async () => {
    const folder = await changedCopy('text-sharing', (tensors) => {
      tensors.set('model.layers.5.self_attn.k_proj.weight', zeros([16, 32]));
    });
    const { status, stdout } = pipe('inspect', folder, '--json', '--batch', '2', '--dtype', 'float32');
    expect(status).toBe(0);
    expect(stdout.trimEnd()).not.toContain('\n');
    const found = JSON.parse(stdout) as Inspection;
    const expected = await inspectCheckpoint(folder, { batch: 2, dtype: 'float32' });
    expect(found).toEqual(JSON.parse(JSON.stringify(expected)));
    expect(found.weights?.dead).toEqual([
      { name: 'model.layers.5.self_attn.k_proj.weight', parameters: 512, isZero: true },
    ]);
  });

  it('exits with 1 on a broken checkpoint and with 2 on wrong usage', () => {
    const folder = temporaryFolder();
    cpSync(referencePath('text-sharing/config.json'), join(folder, 'config.json'));
    writeFileSync(join(folder, 'model.safetensors'), 'no weights');
    const broken = pipe('inspect', folder);
    expect(broken).toMatchObject({ status: 1, stdout: '' });
    expect(broken.stderr).toContain('CheckpointError');
    expect(pipe('inspect', join(folder, 'none')).status).toBe(1);
    writeFileSync(join(folder, 'config.json'), '{"num_hidden_layers": -1}');
    const faulty = pipe('inspect', folder);
    expect(faulty.stderr).toContain('num_hidden_layers');
    expect(faulty.status).toBe(1);
    expect(pipe('inspect').status).toBe(2);
    expect(pipe('inspect', e2b, '--batch', '0')).toMatchObject({ status: 2, stdout: '' });
    expect(pipe('inspect', e2b, '--dtype', 'int4').stderr).toContain('dtype');
  });

  it('names dead weights with the layers that hold them', async () => {
    const folder = await changedCopy('text-sharing', (tensors) => {
      for (const layer of [3, 4, 5]) {
        tensors.set(`model.layers.${layer}.self_attn.k_proj.weight`, zeros([16, 32]));
        tensors.set(
          `model.layers.${layer}.self_attn.v_proj.weight`,
          layer === 4 ? randn([16, 32]) : zeros([16, 32]),
        );
      }
    });
    const text = inspectionText(await inspectCheckpoint(folder));
    expect(text).toContain('6 dead tensors of sharing layers (3,072 parameters), not all zero:');
    expect(text).toContain('  dead self_attn.k_proj.weight of layers 3-5\n');
    expect(text).toContain('  dead self_attn.v_proj.weight of layers 3, 5\n');
    expect(text).toContain('  dead self_attn.v_proj.weight, not zero, of layers 4\n');
  });

  it('warns of what is odd about weights', async () => {
    const folder = await changedCopy('text-sharing', (tensors) => {
      tensors.get('model.layers.2.mlp.up_proj.weight')!.zero_();
      tensors.get('model.norm.weight')!.fill_(NaN);
    });
    const text = inspectionText(await inspectCheckpoint(folder));
    expect(text).toContain('warning: zero throughout: 1\n  zero model.layers.2.mlp.up_proj.weight');
    expect(text).toContain('model.norm.weight: 32 NaN, 0 infinite');
    expect(text).toContain('no dead weights stored');
  });
});

describe('pipe slice', () => {
  it('writes the slice that its options name', () => {
    const out = join(temporaryFolder(), 'slice');
    const options = ['--layers', '1-3,5', '--intermediate-size', '24,16x1,48,7', '--json'];
    const { status, stdout } = pipe('slice', referencePath('text-sharing'), '--out', out, ...options);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      layers: [1, 2, 3, 5],
      intermediateSizes: [24, 16, 48, 7],
      numKvSharedLayers: 2,
    });
    expect(readJson(join(out, 'config.json'))).toMatchObject({ num_hidden_layers: 4 });
    expect(readdirSync(out)).toContain('model.safetensors');
  });

  it('says in a line what came of it', () => {
    const out = join(temporaryFolder(), 'slice');
    const { stdout } = pipe('slice', referencePath('text-sharing'), '--out', out, '--intermediate-size', '8');
    expect(stdout).toBe(
      `${out}: 6 layers (3 share keys and values), feed-forwards of 8, 40,334 parameters\n`,
    );
  });

  it.each([
    [['--layers', '0,2,3'], 'keep 1, the last unshared sliding attention layer'],
    [['--layers', '3-1'], '--layers: expected numbers such as 0-19,25-34, received "3-1"'],
    [['--intermediate-size', '8,x'], '--intermediate-size: expected numbers such as 8192'],
    [['--preset', 'e2b'], 'preset e2b: expected a model of 35 layers'],
    [['--preset', 'e7b'], 'preset'],
    [[], 'expected something to cut'],
  ])('%o is wrong usage', (options, message) => {
    const out = join(temporaryFolder(), 'slice');
    const { status, stderr } = pipe('slice', referencePath('text-sharing'), '--out', out, ...options);
    expect(stderr).toContain(message);
    expect(status).toBe(2);
  });
});
