// What may be drawn, against the reference's logits processors, and with which probabilities it is.

import { afterAll, describe, expect, it } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { filterScores, penalise } from '../../src/generate/filters.js';
import { type SamplingOptions, samples } from '../../src/generate/options.js';
import { chooser } from '../../src/generate/sample.js';
import { SeenTokens } from '../../src/generate/seen.js';
import {
  type Tensor,
  cat,
  manualSeed,
  liveTensors,
  randn,
  scope,
  setNumThreads,
  softmax,
  tensor,
} from '../../src/tensor/index.js';
import { numbers, readJson, referencePath } from '../models/text-reference.js';
import { settledTensors } from '../live.js';

setNumThreads(1);

interface Case {
  readonly name: string;
  readonly options: Readonly<Record<string, number | boolean>>;
}

const values = new SafetensorsFile(referencePath('generate/filters.safetensors'));
const cases = readJson(referencePath('generate/filters.json')) as unknown as Case[];
afterAll(() => values.close());

function optionsOf({ options }: Case): SamplingOptions {
  const camel = (key: string): string => key.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
  return {
    doSample: true,
    ...Object.fromEntries(Object.entries(options).map(([key, value]) => [camel(key), value])),
  };
}

function idsOf(name: string): (number | undefined)[][] {
  const [ids, mask] = [values.read(`${name}.ids`), values.read(`${name}.mask`)];
  const [rows = 0, length = 0] = ids.shape;
  const [flat, real] = [numbers(ids), numbers(mask)];
  return Array.from({ length: rows }, (_, row) =>
    Array.from({ length }, (_, t) => (real[row * length + t] ? flat[row * length + t] : undefined)),
  );
}

/** What `chooser` draws from, or takes the likeliest of. */
function filtered(scores: Tensor, one: Case): Tensor {
  const options = optionsOf(one);
  const { repetitionPenalty } = options;
  let made = scores;
  if (repetitionPenalty !== undefined) {
    using seen = new SeenTokens(scores.shape[0]!, scores.shape[1]!, 'cpu');
    seen.add(idsOf(one.name));
    made = penalise(made, seen.mask, repetitionPenalty);
  }
  return samples(options) ? filterScores(made, options) : made;
}

describe('the filters', () => {
  it.each(cases)('of $name, $options, leave what the reference leaves, as likely', (one) => {
    scope(() => {
      const made = filtered(values.read(`${one.name}.scores`), one);
      const expected = values.read(`${one.name}.filtered`);
      expect(numbers(made).map(Number.isFinite)).toEqual(numbers(expected).map(Number.isFinite));
      const [ours, theirs] = [numbers(softmax(made, -1)), numbers(softmax(expected, -1))];
      for (const [i, p] of ours.entries()) expect(Math.abs(p - theirs[i]!)).toBeLessThan(1e-6);
    });
  });

  it.each([0.3, 0.9, 0.97, 0.9999])(
    'find the nucleus of %d in a large vocabulary, whatever rows are beside',
    (topP) => {
      manualSeed(3);
      scope(() => {
        // sharp to flat, and rounded, so that many are as likely as one another
        const scales = [9, 4, 1, 0.05].map((scale) => randn([1, 4000]).mul(scale));
        const rows = [...scales, ...scales.map((row) => row.to('bfloat16').to('float32'))];
        const together = numbers(filterScores(cat(rows), { topP }));
        for (const [i, row] of rows.entries()) {
          const kept = numbers(filterScores(row, { topP })).map(Number.isFinite);
          expect(together.slice(i * 4000, (i + 1) * 4000).map(Number.isFinite)).toEqual(kept);
          expectNucleus(numbers(row), kept, topP);
        }
      });
    },
  );
});

/** The likeliest, of equals any; they hold p, and without the last they do not. */
function expectNucleus(row: readonly number[], kept: readonly boolean[], p: number): void {
  const order = row.map((_, id) => id).sort((a, b) => row[b]! - row[a]!);
  const count = kept.filter(Boolean).length;
  const least = row[order[count - 1]!]!;
  expect(row.every((score, id) => score === least || kept[id] === score > least)).toBe(true);
  const exp = row.map((score) => Math.exp(score - row[order[0]!]!));
  const sumOf = (ids: readonly number[]): number => ids.reduce((sum, id) => sum + exp[id]!, 0);
  const held = (n: number): number => sumOf(order.slice(0, n)) / sumOf(order);
  expect(held(count)).toBeGreaterThan(p - 1e-5);
  if (count > 1) expect(held(count - 1)).toBeLessThan(p + 1e-5);
}

describe('the draw', () => {
  const shares = [0.5, 0, 0.25, 0.125, 0.125];
  const logits = () => tensor(Float32Array.from(shares, Math.log), [1, shares.length]);
  const on = (rows: number) => ({ rows, vocab: shares.length, device: 'cpu' });

  it('takes each token as often as it is likely, and none that is impossible', () => {
    using choose = chooser({ doSample: true, seed: 11 }, on(1));
    const counts = shares.map(() => 0);
    const draws = 4000;
    scope(() => {
      const row = logits();
      for (let i = 0; i < draws; i++) counts[choose.next(row)[0]!]!++;
    });
    for (const [id, share] of shares.entries()) {
      expect(Math.abs(counts[id]! / draws - share)).toBeLessThan(
        4 * Math.sqrt((share * (1 - share)) / draws) + 1e-9,
      );
    }
  });

  it('of a row depends on its seed, its place and its logits, not on the rows beside it', () => {
    scope(() => {
      const row = logits();
      const batch = tensor([...numbers(row), ...numbers(row).reverse(), ...numbers(row)], [3, shares.length]);
      const series = (options: SamplingOptions, given: Tensor): number[][] => {
        using choose = chooser({ doSample: true, ...options }, on(given.shape[0]!));
        return Array.from({ length: 40 }, () => choose.next(given));
      };
      const of = (rows: number[][], place: number): (number | undefined)[] => rows.map((ids) => ids[place]);
      const together = series({ seed: 5 }, batch);
      expect(of(together, 0)).toEqual(of(series({ seed: 5 }, row), 0));
      expect(of(together, 2)).not.toEqual(of(together, 0));
      const listed = series({ seed: [9, 5, 7] }, batch);
      expect(of(listed, 0)).toEqual(of(series({ seed: 9 }, row), 0));
      expect(of(listed, 2)).toEqual(of(series({ seed: 7 }, row), 0));
      expect(series({}, row)).not.toEqual(series({}, row));
    });
  });

  it('gives seeds that differ in their high bits alone different streams', () => {
    const first = (seed: number) => {
      using choose = chooser({ doSample: true, seed }, { rows: 1, vocab: 1000, device: 'cpu' });
      return scope(() =>
        Array.from({ length: 4 }, () => choose.next(tensor(new Float32Array(1000), [1, 1000]))[0]),
      );
    };
    expect(new Set([1, 1 + 2 ** 32, 1 + 2 ** 45, 2].map((seed) => first(seed).join(' '))).size).toBe(4);
  });

  it('refuses logits that are no numbers, and a list of seeds that is not one a row', () => {
    const broken = tensor([1, NaN, 2, 1, 1, 1], [2, 3]);
    const fault = 'generate: row 0: expected logits that are numbers, received NaN';
    for (const options of [{}, { doSample: true }, { topP: 0.5 }]) {
      using choose = chooser(options, { rows: 2, vocab: 3, device: 'cpu' });
      expect(() => choose.next(broken)).toThrow(fault);
    }
    expect(() => chooser({ doSample: true, seed: [1] }, on(2))).toThrow(
      'generate: seed: expected a seed for each of 2 rows, or one number, received 1; give as many as there are prompts',
    );
  });

  it('leaves no tensor behind', async () => {
    const before = await settledTensors();
    const choose = chooser(
      { temperature: 0.5, topP: 0.9, minP: 0.1, topK: 3, repetitionPenalty: 1.5 },
      on(1),
    );
    scope(() => {
      choose.saw([[1, 2, undefined]]);
      choose.next(logits());
    });
    choose[Symbol.dispose]();
    expect(liveTensors()).toBe(before);
  });
});
