// Some tokens' hidden states alone, the last one's or the labelled ones': what only others need is left out, and nothing
// changes by it.

import { afterAll, describe, expect, it } from 'vitest';
import { KvCache } from '../../src/models/gemma3n/kv-cache.js';
import type { CausalLm, ModelInputs } from '../../src/models/gemma3n/causal-lm.js';
import {
  type Tensor,
  grad,
  liveTensors,
  noGrad,
  scope,
  tensor,
  tensorMemory,
} from '../../src/tensor/index.js';
import { load, wordsOf } from './multimodal-reference.js';
import { relativeMax, relativeNorm, textReference } from './text-reference.js';
import { settledTensors } from '../live.js';

const names = ['sharing', 'plain', 'clipped'];

function ids(rows: readonly (readonly number[])[]): Tensor {
  return tensor(BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0]?.length ?? 0]);
}

/** Tokens that differ by row and place. */
function words(rows: number, length: number, below = 80): number[][] {
  return Array.from({ length: rows }, (_, row) =>
    Array.from({ length }, (_, i) => 3 + ((i * i * 7 + 13 * i + 31 * row) % (below - 3))),
  );
}

/** The first `padding[row]` tokens of each row are padding. */
function leftPadded(length: number, padding: readonly number[]): ModelInputs {
  const places = padding.map((count) => Array.from({ length }, (_, i) => i - count));
  return {
    inputIds: ids(words(padding.length, length)),
    attentionMask: ids(places.map((row) => row.map((place) => Number(place >= 0)))),
    positionIds: ids(places.map((row) => row.map((place) => Math.max(place, 0)))),
  };
}

const lastOf = (hidden: Tensor): Tensor => hidden.narrow(1, (hidden.shape[1] ?? 1) - 1, 1);

/** Of both ways, with and without a cache, and of two tokens after them. */
function expectSame(model: CausalLm, inputs: ModelInputs, within = 1e-4): void {
  noGrad(() =>
    scope(() => {
      const whole = lastOf(model.hiddenStates(inputs));
      const alone = model.hiddenStates(inputs, undefined, { lastOnly: true });
      expect(alone.shape).toEqual(whole.shape);
      expect(relativeMax(alone, whole)).toBeLessThan(within);

      using full = new KvCache(model.config.text);
      using lean = new KvCache(model.config.text);
      const cached = lastOf(model.hiddenStates(inputs, full));
      expect(relativeMax(model.hiddenStates(inputs, lean, { lastOnly: true }), cached)).toBeLessThan(within);
      const [batch = 1, length = 1] = inputs.inputIds?.shape ?? [];
      for (const [step, id] of [7, 40].entries()) {
        const last = inputs.positionIds?.narrow(1, length - 1, 1).add(step + 1);
        const next = { inputIds: ids(new Array<number[]>(batch).fill([id])), positionIds: last };
        const expected = model.hiddenStates(next, full);
        expect(relativeMax(model.hiddenStates(next, lean, { lastOnly: true }), expected)).toBeLessThan(
          within,
        );
      }
    }),
  );
}

describe.each(names)('the last hidden state alone (%s)', (name) => {
  const { model } = textReference(name);

  it.each([1, 2, 3, 4, 5, 13, 40])('is that of the whole forward, of %i tokens', (length) => {
    expectSame(model, { inputIds: ids(words(2, length)) });
  });

  it('is that of the whole forward where rows are padded', () => {
    expectSame(model, leftPadded(13, [0, 5, 12, 9]));
    expectSame(model, leftPadded(4, [0, 2]));
  });

  it('is that of the whole forward of the last of several packed sequences', () => {
    const positionIds = ids([[...Array(7).keys(), ...Array(6).keys()]]);
    expectSame(model, { inputIds: ids(words(1, 13)), positionIds });
  });

  it('has the gradients of the whole forward', () => {
    model.train(name === 'clipped');
    const inputs = leftPadded(13, [0, 5]);
    const parameters = [...model.namedParameters()].filter(([, parameter]) => parameter.requiresGrad);
    const gradients = (hidden: Tensor): (Tensor | null)[] => {
      const tensors = parameters.map(([, parameter]) => parameter);
      return grad([model.logits(hidden).square().mean()], tensors);
    };
    const expected = gradients(lastOf(model.hiddenStates(inputs)));
    const given = gradients(model.hiddenStates(inputs, undefined, { lastOnly: true }));
    for (const [i, [parameter]] of parameters.entries()) {
      expect(given[i] === null, parameter).toBe(expected[i] === null);
      if (given[i] && expected[i]) expect(relativeNorm(given[i], expected[i]), parameter).toBeLessThan(1e-4);
    }
    model.eval();
  });
});

describe.each(names)('the hidden states of some tokens alone (%s)', (name) => {
  const { model } = textReference(name);
  const packed = {
    inputIds: ids(words(1, 13)),
    positionIds: ids([[...Array(7).keys(), ...Array(6).keys()]]),
  };
  const some: [string, ModelInputs, number[]][] = [
    ['of one sequence', { inputIds: ids(words(1, 13)) }, [0, 3, 4, 12]],
    ['of two', { inputIds: ids(words(2, 13)) }, [0, 5, 14, 25]],
    ['of padded ones', leftPadded(13, [0, 5]), [1, 12, 18, 25]],
    ['of packed ones', packed, [6, 7, 12]],
    ['of one token', { inputIds: ids(words(1, 5)) }, [2]],
  ];

  it.each(some)('are those of the whole forward, and so are gradients: %s', (_, inputs, places) => {
    model.train(name === 'clipped');
    const rows = ids([places]).view([-1]);
    const parameters = [...model.namedParameters()].filter(([, parameter]) => parameter.requiresGrad);
    const of = (hidden: Tensor) => ({
      hidden,
      gradients: grad(
        [model.logits(hidden).square().mean()],
        parameters.map(([, parameter]) => parameter),
      ),
    });
    const size = model.config.text.hiddenSize;
    const expected = of(model.hiddenStates(inputs).reshape([-1, size]).indexSelect(0, rows));
    const given = of(model.hiddenStates(inputs, undefined, { rows }));
    expect(given.hidden.shape).toEqual([1, places.length, size]);
    expect(relativeMax(given.hidden.view([-1, size]), expected.hidden)).toBeLessThan(1e-5);
    for (const [i, [parameter]] of parameters.entries()) {
      const [mine, theirs] = [given.gradients[i], expected.gradients[i]];
      expect(mine === null, parameter).toBe(theirs === null);
      if (mine && theirs) expect(relativeNorm(mine, theirs), parameter).toBeLessThan(1e-4);
    }
    model.eval();
  });
});

describe('a prompt longer than what is read at once', () => {
  const { model } = textReference('sharing');

  it('gives the same last hidden state, padded or not', () => {
    expectSame(model, { inputIds: ids(words(1, 1100)) }, 2e-3);
    expectSame(model, { inputIds: ids(words(1, 1025)) }, 2e-3);
    expectSame(model, leftPadded(1030, [0, 700]), 2e-3);
  });

  it('takes no memory for a mask of all tokens by all, and leaves none behind', async () => {
    const length = 10_000;
    const before = await settledTensors();
    const { used } = tensorMemory({ restart: true });
    noGrad(() =>
      scope(() => {
        using cache = new KvCache(model.config.text, length);
        model.hiddenStates({ inputIds: ids(words(1, length)) }, cache, { lastOnly: true });
      }),
    );
    expect(tensorMemory().most - used).toBeLessThan(length * length);
    expect(liveTensors()).toBe(before);
  });
});

describe.each(['plain', 'wide'])('the last hidden state alone, with images (%s)', (name) => {
  const { model, values } = load(name);
  afterAll(() => values.close());

  it.each(['left', 'text'])('is that of the whole forward, padding: %s', (side) => {
    const pixelValues = side === 'text' ? undefined : values.read('pixel_values');
    expectSame(model, { ...wordsOf(values, side), pixelValues });
  });
});
