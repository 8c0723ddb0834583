// What steps tell of how training goes, and the warnings that come of it.

import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type Tensor,
  liveTensors,
  noGrad,
  scope,
  setNumThreads,
  tensor,
  zeros,
} from '../../src/tensor/index.js';
import { Dynamics, modelWarnings } from '../../src/train/dynamics.js';
import {
  CLIPPED_WINDOW,
  deadParameters,
  largestParts,
  otherSoftcap,
} from '../../src/train/dynamics-warnings.js';
import { gradientPart, normsByPart } from '../../src/train/gradient-norms.js';
import { UpdateRatio } from '../../src/train/update-ratio.js';
import { allZero } from '../../src/train/zero-weights.js';
import { only, runJob } from './run-job.js';

beforeAll(() => setNumThreads(1));

const weights = (name: string, values: readonly number[]): [string, Tensor] => [
  name,
  tensor([...values], [values.length]),
];

describe('the parts of gradients', () => {
  it.each([
    ['model.language_model.embed_tokens.weight', 'embeddings'],
    ['lm_head.weight', 'embeddings'],
    ['model.embed_tokens_per_layer.weight', 'perLayerEmbeddings'],
    ['model.language_model.layers.3.per_layer_input_gate.weight', 'perLayerEmbeddings'],
    ['model.language_model.layers.3.post_per_layer_input_norm.weight', 'perLayerEmbeddings'],
    ['model.language_model.layers.3.self_attn.q_norm.weight', 'attention'],
    ['model.layers.3.mlp.up_proj.weight', 'mlp'],
    ['model.language_model.layers.3.altup.router_norm.weight', 'altup'],
    ['model.altup_unembed_projections.1.weight', 'altup'],
    ['model.layers.3.laurel.linear_left.weight', 'laurel'],
    ['model.layers.3.input_layernorm.weight', 'norms'],
    ['model.norm.weight', 'norms'],
    ['model.vision_tower.timm_model.blocks.0.0.conv_exp.weight', 'vision'],
    ['model.audio_tower.conformer.0.attention.attn.q_proj.weight', 'audio'],
    ['model.embed_audio.embedding_projection.weight', 'projectors'],
    ['model.layers.3.mlp.up_proj.lora_A.default.weight', 'adapters'],
    ['model.vision_tower.x.lora_magnitude_vector.default.weight', 'adapters'],
  ])('%s is of %s', (name, part) => expect(gradientPart(name)).toBe(part));

  it('add up by squares, and those without a gradient are missing', () => {
    const norms = normsByPart([3, 4, undefined, 12], ['mlp', 'mlp', 'vision', 'norms']);
    expect(norms).toEqual({ mlp: 5, norms: 12 });
    expect(largestParts(norms).map(({ part, share }) => [part, share])).toEqual([
      ['norms', 144 / 169],
      ['mlp', 25 / 169],
    ]);
  });
});

describe('the update ratio', () => {
  it('is the norm of the change over the norm of the weights, part by part, and leaves no tensors', () => {
    const named = [weights('a.mlp.x', [3, 4]), weights('model.norm.weight', [0, 0])];
    const ratio = new UpdateRatio(named);
    expect(ratio.ratios()).toBeUndefined();
    const live = liveTensors();
    ratio.remember();
    noGrad(() => scope(() => void named[0]![1].add_(1)));
    expect(ratio.ratios()!['mlp']).toBeCloseTo(Math.SQRT2 / 5, 6);
    ratio.remember();
    expect(ratio.ratios()).toEqual({ mlp: 0 });
    expect(liveTensors()).toBe(live);
  });
});

describe('warnings', () => {
  const step = (dynamics: Dynamics, number: number, norms: (number | undefined)[], clipped = false) => {
    dynamics.beforeUpdate(number, { norm: Math.hypot(...norms.map((norm) => norm ?? 0)), norms, clipped });
    return dynamics.afterUpdate(number, 0);
  };

  it('name dead parameters once, and tell no gradient from one of zero', () => {
    const named = [
      weights('a.mlp.x', [1]),
      weights('model.vision_tower.b', [1]),
      weights('model.norm.weight', [1]),
    ];
    const dynamics = new Dynamics(named);
    const warnings = Array.from(
      { length: 20 },
      (_, i) => step(dynamics, i + 1, [1, undefined, 0]).warnings ?? [],
    );
    expect(warnings.map(({ length }) => length)).toEqual([
      ...new Array<number>(9).fill(0),
      1,
      ...new Array<number>(10).fill(0),
    ]);
    const [warning] = warnings[9]!;
    expect(warning!.names).toEqual(['model.vision_tower.b', 'model.norm.weight']);
    expect(warning!.message).toBe(
      '2 parameters that should learn have had no gradient in 10 steps: nothing in the loss depends on ' +
        'model.vision_tower.b; a gradient of 0 throughout reaches model.norm.weight',
    );
    expect(warning!.remedy).toMatch(/^give samples with images, or freeze them/);
  });

  it('leave alone what learns later than at the first step', () => {
    const dynamics = new Dynamics([weights('a.lora_A.default.weight', [1])]);
    const all = Array.from({ length: 15 }, (_, i) => step(dynamics, i + 1, [i === 0 ? 0 : 1]));
    expect(all.flatMap(({ warnings = [] }) => warnings)).toEqual([]);
  });

  it('tell of clipping when every one of the last steps was clipped, and not when one was not', () => {
    const run = (wasClipped: (i: number) => boolean) => {
      const dynamics = new Dynamics([weights('a.mlp.x', [1])], { clipNorm: 0.5 });
      return Array.from({ length: CLIPPED_WINDOW + 20 }, (_, i) => step(dynamics, i + 1, [8], wasClipped(i)));
    };
    const always = run(() => true);
    const told = always.flatMap(({ warnings = [] }, i) =>
      warnings.map(({ message }) => [i, message] as const),
    );
    expect(told).toHaveLength(1);
    expect(told[0]![0]).toBe(CLIPPED_WINDOW - 1);
    expect(told[0]![1]).toMatch(
      /^each of the last 100 steps was clipped to 0.5, the newest from a gradient norm of 8; mlp carries 100%/,
    );
    expect(always.at(-1)!.clippedShare).toBe(1);
    const mostly = run((i) => i % 50 !== 49);
    expect(mostly.flatMap(({ warnings = [] }) => warnings)).toEqual([]);
    expect(mostly.at(-1)!.clippedShare).toBe(0.98);
  });

  it('come at the end of a run that was too short for them, once', () => {
    const watched = () => new Dynamics([weights('a.mlp.x', [1]), weights('b.mlp.x', [1])], { clipNorm: 2 });
    const [two, three, ten] = [watched(), watched(), watched()];
    for (let i = 1; i <= 2; i++) step(two, i, [4, 0], true);
    for (let i = 1; i <= 3; i++) step(three, i, [4, 0], true);
    for (let i = 1; i <= 10; i++) step(ten, i, [4, 1], true);
    expect(two.finish()).toEqual([]);
    expect(three.finish().map(({ kind }) => kind)).toEqual(['dead parameters']);
    expect(three.finish()).toEqual([]);
    expect(ten.finish().map(({ message }) => message)).toEqual([
      expect.stringMatching(
        /^each of the last 10 steps was clipped to 2, the newest from a gradient norm of 4\.12/,
      ),
    ]);
  });

  it('find weights that are zero throughout, but not those with a single other element', () => {
    const almost = zeros([1000, 10]);
    noGrad(() => scope(() => void almost.narrow(0, 777, 1).fill_(1e-30)));
    const names = allZero([
      ['zero', zeros([100, 10])],
      ['almost', almost],
      ['x.bias', zeros([4])],
      ['model.audio_tower.conformer.0.attention.attn.per_dim_scale', zeros([16])],
    ]);
    expect(names).toEqual(['zero']);
  });

  it('tell of another soft cap, which is read from the configuration', () => {
    const model = (finalLogitSoftcapping: number | undefined) =>
      ({ config: { text: { finalLogitSoftcapping } }, ownParameters: () => [] }) as unknown as Parameters<
        typeof modelWarnings
      >[0];
    expect(modelWarnings(model(30), 'pretrained')).toEqual([]);
    expect(modelWarnings(model(50), 'pretrained')).toEqual([otherSoftcap(50)]);
    expect(otherSoftcap(undefined).message).toMatch(/^the loss is computed from logits without a soft cap/);
  });

  it('count what they cannot list', () => {
    const names = Array.from(
      { length: 30 },
      (_, i) => [`model.layers.${i % 10}.part${i % 8}.weight`, false] as const,
    );
    expect(deadParameters(names, 1).message).toMatch(/model\.layers\.\*\.part0\.weight \(4\), .* more$/);
  });
});

describe('a run', () => {
  it('tells what is trained, and each step its norms by part, its memory and its speed', async () => {
    const { events, error } = await runJob({ maxSteps: 3 });
    expect(error).toBeUndefined();
    const [model] = only(events, 'model');
    expect(model).toMatchObject({ softcap: 10 });
    expect(model!.peakFlops).toBeGreaterThan(1e8);
    const steps = only(events, 'step');
    expect(steps).toHaveLength(3);
    for (const { gradNorms = {}, gradNorm, memory, tokens, tokensPerSecond, stepMs, waitMs } of steps) {
      expect(Object.keys(gradNorms)).toEqual(
        expect.arrayContaining([
          'embeddings',
          'perLayerEmbeddings',
          'attention',
          'mlp',
          'altup',
          'laurel',
          'norms',
        ]),
      );
      expect(Math.hypot(...Object.values(gradNorms)) / gradNorm).toBeCloseTo(1, 6);
      expect(memory!.used).toBeGreaterThan(0);
      expect(tokensPerSecond).toBeCloseTo((1000 * tokens) / (stepMs + waitMs), 6);
    }
    for (const { flops, mfu, stepMs, waitMs } of steps) {
      expect(flops).toBeGreaterThan(1e7);
      expect(mfu! / ((1000 * flops!) / (stepMs + waitMs) / model!.peakFlops!)).toBeCloseTo(1, 6);
    }
    const [end] = only(events, 'end');
    const times = steps.map(({ stepMs, waitMs }) => stepMs + waitMs);
    const used = steps.reduce((sum, { mfu }, i) => sum + mfu! * times[i]!, 0);
    expect(end!.mfu! / (used / times.reduce((a, b) => a + b))).toBeCloseTo(1, 6);
    const source = readFileSync(new URL('../../src/train/events.ts', import.meta.url), 'utf8');
    const documented = /\/\*\* One optimizer step.*?\*\//s.exec(source)![0];
    for (const field of steps.flatMap(Object.keys).filter((key) => key !== 'event'))
      expect(documented).toContain(`\`${field}\``);
    expect(steps[0]!.updateRatios!['mlp']).toBeGreaterThan(0);
    expect(steps[1]!.updateRatios).toBeUndefined();
  });
});
