// Operations of a step, counted as torch's FlopCounterMode counts the reference's.

import { describe, expect, it } from 'vitest';
import { AudioTower } from '../../src/models/gemma3n/audio.js';
import { decodeAudioConfig } from '../../src/models/gemma3n/audio-config.js';
import { reachOf } from '../../src/models/gemma3n/audio-attention.js';
import { decodeConfig } from '../../src/models/gemma3n/config.js';
import { type BatchShape, FlopCounter, textLoad } from '../../src/models/gemma3n/flops.js';
import { countAudio } from '../../src/models/gemma3n/flops-audio.js';
import { causalPairs, localPairs } from '../../src/models/gemma3n/flops-pairs.js';
import { countVision } from '../../src/models/gemma3n/flops-vision.js';
import { Gemma3nMultimodal, createGemma3n } from '../../src/models/gemma3n/model.js';
import { Learning, Products } from '../../src/models/gemma3n/products.js';
import { decodeVisionConfig } from '../../src/models/gemma3n/vision-config.js';
import { VisionTower } from '../../src/models/gemma3n/vision.js';
import { dora, lora } from '../../src/peft/index.js';
import { applyAdapter } from '../../src/models/gemma3n/index.js';
import type { Module } from '../../src/nn/index.js';
import { withDefaults } from '../../src/tensor/index.js';
import { readJson, referencePath } from './text-reference.js';

interface Case {
  readonly kind: 'text' | 'vision' | 'audio';
  readonly config: string;
  readonly frozen?: readonly string[];
  readonly lora?: number;
  readonly targets?: string | readonly string[];
  readonly batch: number;
  readonly length: number;
  readonly labels: number;
  readonly images: number;
  readonly size: readonly [number, number];
  readonly frames: number;
  readonly total: number;
  /** Of sound alone: those of attention's pairs. */
  readonly attention: number;
}

const cases = readJson(referencePath('flops.json')) as unknown as readonly Case[];

const onMeta = <T>(make: () => T): T => withDefaults({ device: 'meta' }, make);

/** Leaves out what Hugging Face's names match. */
function freeze(module: Module, names: readonly string[] = []): void {
  for (const [path, tensor] of module.namedParameters()) {
    const name = path.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    tensor.requiresGrad = !names.some((part) => name.includes(part));
  }
}

const textModel = (name: string) =>
  createGemma3n(decodeConfig(readJson(referencePath(`${name}/config.json`))));

/** Attention over all pairs, as the reference computes it. */
const dense = ({ batch, length, labels }: Case): BatchShape => ({
  tokens: batch * length,
  pairs: { full_attention: batch * length ** 2, sliding_attention: batch * length ** 2 },
  labels,
  images: 0,
  imageSize: [0, 0],
  clips: [],
});

const describeCase = ({ config, frozen, lora, targets, size, frames }: Case) =>
  [config, frozen?.join(' ') ?? `lora ${lora} ${String(targets)}`, size ?? frames ?? '']
    .filter((word) => word !== '')
    .join(', ');

const of = (kind: Case['kind']): [string, Case][] =>
  cases.filter((each) => each.kind === kind).map((each) => [describeCase(each), each]);

describe('the count is the reference’s', () => {
  it.each(of('text'))('of %s', (_, given) => {
    const model = onMeta(() => textModel(given.config));
    freeze(model, given.frozen);
    if (given.lora !== undefined) {
      const targets =
        typeof given.targets === 'string'
          ? new RegExp(given.targets)
          : given.targets!.map((name) => `*.${name}`);
      applyAdapter(model, lora({ rank: given.lora, alpha: 1, targets }));
    }
    const { forward, backward } = new FlopCounter(model).count(dense(given));
    expect(forward + backward).toBe(given.total);
    model.dispose();
  });

  it.each(of('vision'))('of %s', (_, given) => {
    const args = readJson(referencePath(`${given.config}/model_args.json`));
    const tower = onMeta(() => new VisionTower(decodeVisionConfig({ model_args: args })));
    freeze(tower, given.frozen);
    const products = new Products(new Learning(tower));
    countVision(products, tower, given.images, given.size);
    expect(products.forward + products.backward).toBe(given.total);
  });

  it.each(of('audio'))('of %s, but for pairs out of reach', (_, given) => {
    const config = decodeAudioConfig(readJson(referencePath(`${given.config}/config.json`)));
    const tower = onMeta(() => new AudioTower(config));
    freeze(tower, given.frozen);
    const products = new Products(new Learning(tower));
    countAudio(products, tower, [given.frames]);
    const { forward, backward, attended } = products;
    expect(forward + backward - attended).toBe(given.total - given.attention);

    const { before, behind, chunk, seen } = reachOf(config);
    const [[first], [second]] = config.sscpConvStrideSize;
    const frames = Math.ceil(Math.ceil(given.frames / first) / second);
    const chunks = Math.ceil(frames / chunk) * chunk;
    const computed = chunks * (2 * seen + (before + 1 + behind)); // of chunks, and of all distances
    expect(attended / given.attention).toBeCloseTo((3 * localPairs(frames, before, behind)) / computed, 12);
  });
});

describe('pairs of attention', () => {
  it('are those that a query may see', () => {
    const brute = (lengths: readonly number[], sees: (q: number, k: number) => boolean) =>
      lengths.reduce((sum, length) => {
        for (let q = 0; q < length; q++) for (let k = 0; k < length; k++) if (sees(q, k)) sum += 1;
        return sum;
      }, 0);
    for (const lengths of [[7], [1, 3, 9], [0, 12]]) {
      expect(causalPairs(lengths)).toBe(brute(lengths, (q, k) => k <= q));
      for (const window of [1, 4, 9]) {
        expect(causalPairs(lengths, window)).toBe(brute(lengths, (q, k) => k <= q && q - k < window));
      }
    }
    for (const [length, before, behind] of [
      [10, 3, 0],
      [10, 2, 4],
      [3, 12, 5],
      [1, 0, 0],
    ] as const) {
      const expected = brute([length], (q, k) => k >= q - before && k <= q + behind);
      expect(localPairs(length, before, behind)).toBe(expected);
    }
  });
});

describe('a whole model', () => {
  const config = readJson(referencePath('multimodal-audio/config.json'));
  const multimodal = () => onMeta(() => createGemma3n(decodeConfig(config)) as Gemma3nMultimodal);
  const words: BatchShape = {
    ...textLoad([5, 9], 4),
    labels: 6,
    images: 0,
    imageSize: [64, 64],
    clips: [],
  };
  const total = (model: Gemma3nMultimodal, batch: BatchShape) => {
    const { forward, backward } = new FlopCounter(model).count(batch);
    return { forward, backward };
  };

  it('counts towers where the batch has their media, and their backward pass where they learn', () => {
    const model = multimodal();
    freeze(model);
    const plain = total(model, words);
    const heard = total(model, { ...words, clips: [40, 20] });
    expect(heard.forward).toBeGreaterThan(plain.forward);
    const towerForward = heard.forward - plain.forward;
    freeze(model, ['audio_tower', 'embed_audio', 'vision_tower', 'embed_vision']);
    const frozen = total(model, { ...words, clips: [40, 20] });
    expect(frozen.forward).toBe(heard.forward);
    expect(frozen.backward).toBe(plain.backward);
    expect(heard.backward - frozen.backward).toBeGreaterThan(1.5 * towerForward);
    model.dispose();
  });

  it('needs less than two thirds of full training’s products for an adapter', () => {
    const model = multimodal();
    freeze(model);
    const full = total(model, words);
    applyAdapter(model, lora({ rank: 1, alpha: 1 }));
    const adapted = total(model, words);
    expect(adapted.forward / full.forward).toBeGreaterThan(1);
    expect(adapted.forward / full.forward).toBeLessThan(1.15);
    expect(adapted.backward / full.backward).toBeLessThan(0.65);
    model.dispose();
  });

  it('counts DoRA’s norms once, whatever the batch', () => {
    const [plain, weighed] = [multimodal(), multimodal()];
    applyAdapter(plain, lora({ rank: 2, alpha: 1 }));
    applyAdapter(weighed, dora({ rank: 2, alpha: 1 }));
    const extra = (batch: BatchShape) => total(weighed, batch).forward - total(plain, batch).forward;
    expect(extra(words)).toBeGreaterThan(0);
    expect(extra({ ...words, ...textLoad([50], 4) })).toBe(extra(words));
    plain.dispose();
    weighed.dispose();
  });
});
