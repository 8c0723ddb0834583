// Word error rates against jiwer's, recorded by test/reference/word_error_rate.py.

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Target } from '../../src/data/types.js';
import { promptAloneWords, wordErrorRate } from '../../src/eval/index.js';
import type { Score } from '../../src/eval/score.js';
import { type WordOptions, wordErrors, wordsOf } from '../../src/eval/word-error-rate.js';
import { type Part, make, part } from '../../src/parts.js';

interface Recorded {
  readonly pairs: readonly (readonly [string, string])[];
  readonly rates: readonly {
    readonly name: string;
    readonly options: WordOptions;
    readonly whole: number;
    readonly each: readonly number[];
  }[];
}

const recorded = JSON.parse(
  readFileSync(new URL('../../fixtures/reference/word-error-rate.json', import.meta.url), 'utf8'),
) as Recorded;

const target = (reference: string, tags: Record<string, string> = {}, prompt = ''): Target => ({
  prompt,
  reference,
  tags,
});

/** The score as a pipeline makes it: with its defaults. */
const made = (score: Part<'score', undefined, Score>): Score =>
  make(part('score').parse(score) as typeof score, undefined);

function scored(score: Score, answers: readonly (readonly [string, Target])[]): Record<string, number> {
  for (const [answer, wanted] of answers) score.add(answer, wanted);
  return score.result();
}

describe('wordErrorRate', () => {
  it.each(recorded.rates)("equals jiwer's over the set and for each sentence, $name", (rates) => {
    const { pairs } = recorded;
    const all = pairs.map(([reference, answer]) => [answer, target(reference)] as const);
    const rate = (answers: typeof all) =>
      scored(made(wordErrorRate(rates.options)), answers)['wordErrorRate'];
    expect(rate(all)).toBeCloseTo(rates.whole, 12);
    for (const [i, each] of rates.each.entries()) expect(rate([all[i]!]), pairs[i]![0]).toBeCloseTo(each, 12);
  });

  it('is of the set, not the mean of its sentences, and may exceed one', () => {
    const answers = [
      ['one', target('one')],
      ['one two nine', target('one two three four five')],
    ] as const;
    expect(scored(made(wordErrorRate()), answers)).toEqual({ wordErrorRate: 3 / 6 });
    expect(scored(made(wordErrorRate()), [['a b c', target('d')]])).toEqual({ wordErrorRate: 3 });
  });

  it('also by a tag; what lacks the tag counts for the whole alone', () => {
    const answers = [
      ['one', target('one', { voice: 'a' })],
      ['one one', target('one', { voice: 'b' })],
      ['', target('one two')],
    ] as const;
    expect(scored(made(wordErrorRate({ by: 'voice' })), answers)).toEqual({
      wordErrorRate: 3 / 4,
      'wordErrorRate:a': 0,
      'wordErrorRate:b': 1,
    });
  });

  it('ignores case and punctuation unless told otherwise, and never accents', () => {
    const answer = [['Three, ONE; née!', target('three one née')]] as const;
    expect(scored(made(wordErrorRate()), answer)).toEqual({ wordErrorRate: 0 });
    const exact = wordErrorRate({ ignoreCase: false, ignorePunctuation: false });
    expect(scored(made(exact), answer)).toEqual({ wordErrorRate: 1 });
    expect(scored(made(wordErrorRate()), [['nee', target('née')]])).toEqual({ wordErrorRate: 1 });
  });

  it('takes a letter with its accent behind it for the letter with the accent', () => {
    expect(scored(made(wordErrorRate()), [['ne\u0301e', target('n\u00e9e')]])).toEqual({
      wordErrorRate: 0,
    });
  });

  it('of nothing is nothing, and so it is of references without a word', () => {
    expect(made(wordErrorRate()).result()).toEqual({});
    expect(scored(made(wordErrorRate()), [['one', target(' ')]])).toEqual({});
  });

  it('counts words said to a silent reference in a set that has others', () => {
    const answers = [
      ['two three', target('')],
      ['one', target('one')],
    ] as const;
    expect(scored(made(wordErrorRate()), answers)).toEqual({ wordErrorRate: 2 });
  });
});

describe('wordErrors', () => {
  const { pairs } = recorded;
  const words = pairs
    .slice(0, 30)
    .map(([text]) => wordsOf(text, { ignoreCase: true, ignorePunctuation: true }));

  it('is a metric: zero for the same alone, symmetric, never longer by a detour', () => {
    for (const a of words) {
      expect(wordErrors(a, a)).toBe(0);
      for (const b of words) {
        expect(wordErrors(a, b)).toBe(wordErrors(b, a));
        expect(wordErrors(a, b)).toBeLessThanOrEqual(wordErrors(a, words[0]!) + wordErrors(words[0]!, b));
      }
    }
  });

  it('is the length beside nothing', () => {
    expect(wordErrors([], [])).toBe(0);
    expect(wordErrors(['a', 'b'], [])).toBe(2);
    expect(wordErrors([], ['a', 'b', 'c'])).toBe(3);
  });
});

describe('promptAloneWords', () => {
  const alone = (references: readonly string[]) =>
    scored(
      made(promptAloneWords()),
      references.map((text) => ['ignored', target(text)] as const),
    );

  it('is the rate of the best single answer', () => {
    expect(alone(['one two', 'one two', 'three'])).toEqual({ promptAloneWords: 2 / 5 });
    expect(alone(['one two', 'two three', 'four two'])).toEqual({ promptAloneWords: 3 / 6 });
  });

  it('is never worse than silence', () => {
    expect(alone(['one', 'two three four', 'five six'])['promptAloneWords']).toBeLessThanOrEqual(1);
  });

  it('chooses an answer for each prompt', () => {
    const answers = [
      ['', target('red', {}, 'colour?')],
      ['', target('Red.', {}, 'colour?')],
      ['', target('yes', {}, 'is it?')],
      ['', target('no', {}, 'is it?')],
    ] as const;
    expect(scored(made(promptAloneWords()), answers)).toEqual({ promptAloneWords: 1 / 4 });
  });

  it('of nothing is nothing', () => {
    expect(made(promptAloneWords()).result()).toEqual({});
  });
});
