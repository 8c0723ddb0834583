// What is easy to get wrong in the text tower, each on its own.

import { describe, expect, it } from 'vitest';
import { decodeConfig } from '../../src/models/gemma3n/config.js';
import { Gemma3nText } from '../../src/models/gemma3n/gemma3n-text.js';
import { initialise } from '../../src/models/gemma3n/initialise.js';
import { KvCache } from '../../src/models/gemma3n/kv-cache.js';
import { type Tensor, cat, liveTensors, manualSeed, noGrad, scope, tensor } from '../../src/tensor/index.js';
import {
  numbers,
  readJson,
  referencePath,
  relativeMax,
  relativeNorm,
  textReference,
} from './text-reference.js';
import { settledTensors } from '../live.js';

function ids(rows: readonly (readonly number[])[]): Tensor {
  return tensor(BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0]?.length ?? 0]);
}

const sequence = [5, 17, 90, 33, 8, 41, 77, 12, 64, 3, 29, 55, 81];

describe('shared keys and values', () => {
  it('have no weights of their own in the sharing layers', () => {
    const { model } = textReference('sharing');
    const names = Array.from(model.namedParameters(), ([name]) => name);
    const withKeys = names.filter((name) => name.endsWith('k_proj.weight')).map((name) => name.split('.')[2]);
    expect(withKeys).toEqual(['0', '1', '2']);
  });

  it("bring their source's projections the gradients of the layers that share them", () => {
    const { model } = textReference('sharing');
    const layers = model.model.layers;
    const gradientOfSource = (): Tensor => {
      const weight = layers[1]?.selfAttn.kProj?.weight;
      if (!weight) throw new Error('layer 1 has keys');
      weight.grad = null;
      model.forward({ inputIds: ids([sequence]), labels: ids([sequence]) }).loss?.backward();
      const gradient = weight.grad as Tensor | null;
      if (!gradient) throw new Error('no gradient');
      return gradient.clone();
    };
    const whole = gradientOfSource();
    noGrad(() => layers[4]?.selfAttn.oProj.weight.zero_()); // layer 4 shares layer 1's keys; now nobody sees it
    expect(relativeNorm(gradientOfSource(), whole)).toBeGreaterThan(0.01);
  });
});

describe('a cache', () => {
  it.each(['sharing', 'plain', 'clipped'])(
    'gives the hidden states of one whole forward, in pieces (%s)',
    (name) => {
      const { model } = textReference(name);
      scope(() =>
        noGrad(() => {
          const whole = model.hiddenStates({ inputIds: ids([sequence, [...sequence].reverse()]) });
          for (const pieces of [[13], [7, 6], [1, 4, 1, 1, 5, 1], sequence.map(() => 1)]) {
            using cache = new KvCache(model.config.text, 3);
            let start = 0;
            const parts = pieces.map((count) => {
              const take = (row: readonly number[]): number[] => row.slice(start, start + count);
              const inputIds = ids([take(sequence), take([...sequence].reverse())]);
              start += count;
              return model.hiddenStates({ inputIds }, cache);
            });
            // Few units pass the sparse layers' cut by little, and the norm after them magnifies rounding.
            expect(relativeMax(cat(parts, 1), whole)).toBeLessThan(2e-3);
          }
        }),
      );
    },
  );

  it('keeps the window of a sliding layer, all of a full one, and nothing of one that shares', async () => {
    const { model } = textReference('sharing'); // layers 0 and 1 slide over 4 tokens, 2 is full, 3 to 5 share
    const bytesOf = (tokens: number): number => tokens * 2 * 2 * 8 * 4; // keys and values, heads, head size, float32
    const before = await settledTensors();
    noGrad(() => {
      using cache = new KvCache(model.config.text, 64);
      for (let i = 0; i < 50; i++) {
        scope(() => void model.hiddenStates({ inputIds: ids([[5 + i]]) }, cache));
        expect(cache.bytes).toBe(bytesOf(4 + 4 + 64));
        expect(liveTensors() - before).toBe(6);
      }
      expect(cache.length).toBe(50);
      scope(() => void model.hiddenStates({ inputIds: ids([sequence]) }, cache));
      expect(cache.bytes).toBe(bytesOf(4 + 4 + 64));
      scope(() => void model.hiddenStates({ inputIds: ids([sequence]) }, cache));
      expect(cache.bytes).toBe(bytesOf(4 + 4 + 128));
    });
    expect(liveTensors()).toBe(before);
  });

  it('hides padding from tokens that come one by one or in pieces, as long as their window reaches it', () => {
    const { model } = textReference('sharing');
    const padded = [0, 0, 0, ...sequence.slice(0, 10)];
    const positions = (rows: readonly (readonly number[])[]): number[][] =>
      rows.map((row) => row.map((i) => Math.max(0, i)));
    const all = [sequence, padded];
    const places = positions([[...sequence.keys()], padded.map((_, i) => i - 3)]);
    const mask = [sequence.map(() => 1), padded.map((_, i) => Number(i > 2))];
    scope(() =>
      noGrad(() => {
        const whole = model.hiddenStates({
          inputIds: ids(all),
          attentionMask: ids(mask),
          positionIds: ids(places),
        });
        for (const pieces of [
          [4, ...new Array<number>(9).fill(1)],
          [6, 2, 1, 3, 1],
          [3, 10],
        ]) {
          using cache = new KvCache(model.config.text);
          let start = 0;
          const parts = pieces.map((count, i) => {
            const take = (rows: readonly (readonly number[])[]): Tensor =>
              ids(rows.map((row) => row.slice(start, start + count)));
            const inputs = {
              inputIds: take(all),
              positionIds: take(places),
              ...(i === 0 && { attentionMask: take(mask) }),
            };
            start += count;
            return model.hiddenStates(inputs, cache);
          });
          expect(relativeMax(cat(parts, 1).narrow(1, 3, 10), whole.narrow(1, 3, 10))).toBeLessThan(2e-3);
        }
      }),
    );
  });
});

describe('sequences in a batch', () => {
  const { model } = textReference('sharing');
  const short = sequence.slice(0, 6);
  const alone = noGrad(() => model.forward({ inputIds: ids([short]) }).logits);

  it.each(['left', 'right'])('do not see padding on the %s', (side) => {
    const fill = (value: number): number[] => new Array<number>(7).fill(value);
    const pad = (row: readonly number[], value: number): number[] =>
      side === 'left' ? [...fill(value), ...row] : [...row, ...fill(value)];
    const { logits } = noGrad(() =>
      model.forward({
        inputIds: ids([sequence, pad(short, 44)]),
        attentionMask: ids([
          sequence.map(() => 1),
          pad(
            short.map(() => 1),
            0,
          ),
        ]),
      }),
    );
    const own = logits.narrow(0, 1, 1).narrow(1, side === 'left' ? 7 : 0, 6);
    expect(relativeMax(own, alone)).toBeLessThan(1e-5);
  });

  it('may be packed in one row: positions that start again separate them', () => {
    const other = sequence.slice(2, 9);
    const { logits } = noGrad(() =>
      model.forward({
        inputIds: ids([[...other, ...short]]),
        positionIds: ids([[...other.keys(), ...short.keys()]]),
      }),
    );
    expect(relativeMax(logits.narrow(1, 7, 6), alone)).toBeLessThan(1e-5);
  });

  it('give finite gradients where a whole row is padding', () => {
    const inputs = {
      inputIds: ids([short, short]),
      attentionMask: ids([short.map(() => 1), short.map(() => 0)]),
    };
    model.lossSum({ ...inputs, labels: ids([short, short.map(() => -100)]) }).loss.backward();
    for (const [name, parameter] of model.namedParameters()) {
      expect(numbers(parameter.grad ?? tensor([NaN])).every(Number.isFinite), name).toBe(true);
      parameter.grad = null;
    }
  });
});

describe('embeddings', () => {
  it('of zeros, as the padding row starts, bring no NaN into the gradients', () => {
    const model = new Gemma3nText(decodeConfig(readJson(`${referencePath('text-sharing')}/config.json`)));
    manualSeed(1);
    initialise(model);
    const row = [0, 0, 0, ...sequence];
    const attentionMask = ids([row.map((id) => Number(id !== 0))]);
    model
      .lossSum({ inputIds: ids([row]), attentionMask, labels: ids([row.map((id) => id || -100)]) })
      .loss.backward();
    for (const [name, { grad }] of model.namedParameters()) {
      expect(numbers(grad ?? tensor([NaN])).every(Number.isFinite), name).toBe(true);
    }
  });

  it('take row 0 of the per-layer table for ids beyond it', () => {
    const { model } = textReference('sharing');
    const rows = model.model.perLayerInputs(ids([[0, 80, 95, 79]]));
    expect(relativeMax(rows.select(1, 1), rows.select(1, 0))).toBe(0);
    expect(relativeMax(rows.select(1, 2), rows.select(1, 0))).toBe(0);
    expect(relativeMax(rows.select(1, 3), rows.select(1, 0))).toBeGreaterThan(0.1);
  });

  it('can be given instead of ids', () => {
    const { model } = textReference('sharing');
    const inputIds = ids([sequence]);
    const { logits } = model.forward({
      inputsEmbeds: model.model.embed(inputIds),
      perLayerInputs: model.model.perLayerInputs(inputIds),
    });
    expect(relativeMax(logits, model.forward({ inputIds }).logits)).toBe(0);
  });
});

describe('training', () => {
  it("clamps AltUp's prediction weights in place, and a second forward leaves the first one's graph usable", () => {
    const { model } = textReference('clipped');
    model.train();
    const inputs = { inputIds: ids([sequence]), labels: ids([sequence]) };
    const first = model.lossSum(inputs);
    const second = model.lossSum(inputs);
    first.loss.add(second.loss).backward();
    const largest = model.model.layers[0]?.altup.predictionCoefs.weight.abs().amax().item();
    expect(largest).toBeCloseTo(0.25, 6);
  });

  it('leaves no tensor behind', async () => {
    const { model } = textReference('sharing');
    const inputs = { inputIds: ids([sequence]), labels: ids([sequence]) };
    const step = (): void =>
      scope(() => {
        model.lossSum(inputs).loss.backward();
        for (const [, parameter] of model.namedParameters()) parameter.grad = null;
      });
    step();
    const before = await settledTensors();
    for (let i = 0; i < 5; i++) step();
    expect(liveTensors()).toBe(before);
  });

  it('gives frozen parameters no gradient', () => {
    const { model } = textReference('sharing');
    model.model.embedTokens.weight.requiresGrad = false;
    model.model.embedTokensPerLayer.weight.requiresGrad = false;
    model.lossSum({ inputIds: ids([sequence]), labels: ids([sequence]) }).loss.backward();
    expect(model.model.embedTokens.weight.grad).toBeNull();
    expect(model.model.embedTokensPerLayer.weight.grad).toBeNull();
    expect(model.model.layers[0]?.mlp.upProj.weight.grad).not.toBeNull();
  });

  it('drops attention only while training', () => {
    const json = { ...readJson(`${referencePath('text-plain')}/config.json`), attention_dropout: 0.5 };
    const model = new Gemma3nText(decodeConfig(json));
    manualSeed(1);
    initialise(model);
    const logits = (): Tensor => noGrad(() => model.forward({ inputIds: ids([sequence]) }).logits);
    expect(relativeMax(logits(), logits())).toBeGreaterThan(1e-3);
    model.eval();
    expect(relativeMax(logits(), logits())).toBe(0);
  });

  it('works in bfloat16, near the float32 result', () => {
    const { model, value } = textReference('plain', 'bfloat16');
    const inputs = { inputIds: value('none.input_ids') };
    const { logits } = model.forward(inputs);
    expect(logits.dtype).toBe('bfloat16');
    expect(relativeMax(logits, value('none.logits'))).toBeLessThan(0.1); // the reference's own is 0.05
    const { loss, numLabels } = model.lossSum({ ...inputs, labels: value('none.labels') });
    expect(loss.dtype).toBe('float32');
    expect(Math.abs(loss.item() / numLabels / value('none.loss').item() - 1)).toBeLessThan(0.02);
    loss.div(numLabels).backward();
    for (const [name, { grad }] of model.namedParameters()) {
      expect(numbers(grad ?? tensor([0])).every(Number.isFinite), name).toBe(true);
    }
    const head = model.outputWeight.grad;
    expect(head && relativeNorm(head, value('grad.lm_head.weight'))).toBeLessThan(0.1);
  });
});

describe('initialise', () => {
  const build = (seed: number): Gemma3nText => {
    const model = new Gemma3nText(decodeConfig(readJson(`${referencePath('text-plain')}/config.json`)));
    manualSeed(seed);
    initialise(model);
    return model;
  };

  it('keeps variances at 1: matrices by their fan-in, embeddings by their size, norms and output scales 1', () => {
    const { embedTokens, layers, norm } = build(1).model;
    const std = (weight: Tensor | undefined): number => Math.sqrt(weight?.square().mean().item() ?? NaN);
    expect(std(embedTokens.weight) * Math.sqrt(24)).toBeCloseTo(1, 1);
    expect(std(layers[0]?.mlp.downProj.weight) * Math.sqrt(32)).toBeCloseTo(1, 1);
    expect(numbers(norm.weight ?? tensor([0])).every((w) => w === 1)).toBe(true);
    expect(numbers(layers[0]?.altup.correctOutputScale ?? tensor([0])).every((w) => w === 1)).toBe(true);
    expect(layers[0]?.selfAttn.qNorm.weight?.amax().item()).toBeCloseTo(8 ** -0.5, 6);
    expect(layers[0]?.selfAttn.qProj.bias?.abs().amax().item()).toBe(0);
    expect(embedTokens.weight.select(0, 0).abs().amax().item()).toBe(0);
  });

  it('gives the same weights for the same seed', () => {
    const weights = (seed: number): number[] =>
      numbers(build(seed).model.layers[1]?.mlp.upProj.weight ?? tensor([0]));
    expect(weights(3)).toEqual(weights(3));
    expect(weights(3)).not.toEqual(weights(4));
  });
});

describe('inputs that do not fit', () => {
  const { model } = textReference('sharing');
  const inputIds = ids([sequence]);

  it.each([
    [{}, 'forward: expected either inputIds or inputsEmbeds, received neither; give one of them'],
    [
      { inputIds: ids([[1, 96]]) },
      "inputIds: expected ids below the vocabulary's 96, received 96; use the tokenizer that belongs to this model",
    ],
    [
      { inputIds: tensor(BigInt64Array.of(1n), [1]) },
      'inputIds: expected [batch, length], received [1]; give a row a sequence',
    ],
    [
      { inputIds, attentionMask: ids([[1, 1]]) },
      'attentionMask: expected [1, 13], as the tokens, received [1, 2]; give 1 for every token and 0 for padding',
    ],
    [
      { inputsEmbeds: model.model.embed(inputIds), perLayerInputs: tensor([0], [1, 1, 1, 1]) },
      'perLayerInputs: expected [1, 13, 6, 6], received [1, 1, 1, 1]; compute them with perLayerInputs(inputIds)',
    ],
  ])('are refused: %#', (inputs, message) => {
    expect(() => model.forward(inputs)).toThrow(message);
  });

  it('are refused without labels where a loss is asked for', () => {
    expect(() => model.lossSum({ inputIds })).toThrow('lossSum: expected labels, received none');
  });
});
