import { describe, expect, it } from 'vitest';
import type { Target } from '../../src/data/types.js';
import { exactMatch, promptAlone } from '../../src/eval/index.js';
import { type Score } from '../../src/eval/score.js';
import { make } from '../../src/parts.js';

const target = (reference: string, prompt = 'what?', tags: Record<string, string> = {}): Target => ({
  prompt,
  reference,
  tags,
});

function scored(score: Score, answers: readonly (readonly [string, Target])[]): Record<string, number> {
  for (const [answer, wanted] of answers) score.add(answer, wanted);
  return score.result();
}

describe('exactMatch', () => {
  it('is the share of answers that equal the reference, spaces at the ends aside', () => {
    const answers = [
      [' red\n', target('red')],
      ['Red', target('red')],
      ['red circle', target('red')],
      ['', target('')],
    ] as const;
    expect(scored(make(exactMatch(), undefined), answers)).toEqual({ exactMatch: 0.5 });
  });

  it('also by a tag; what lacks the tag counts for the whole alone', () => {
    const answers = [
      ['yes', target('yes', 'a', { kind: 'yes/no' })],
      ['no', target('yes', 'a', { kind: 'yes/no' })],
      ['red', target('red', 'b', { kind: 'colour' })],
      ['red', target('red')],
    ] as const;
    expect(scored(make(exactMatch({ by: 'kind' }), undefined), answers)).toEqual({
      exactMatch: 0.75,
      'exactMatch:yes/no': 0.5,
      'exactMatch:colour': 1,
    });
  });

  it('of nothing is nothing', () => {
    expect(make(exactMatch(), undefined).result()).toEqual({});
  });
});

describe('promptAlone', () => {
  it('is what the commonest answer to each prompt would reach, whatever was answered', () => {
    const answers = ['red', 'red', 'blue'].map((reference) => ['?', target(reference, 'colour')] as const);
    const more = ['yes', 'no'].map((reference) => ['?', target(reference, 'is it?')] as const);
    expect(scored(make(promptAlone(), undefined), [...answers, ...more])).toEqual({ promptAlone: 3 / 5 });
    expect(make(promptAlone(), undefined).result()).toEqual({ promptAlone: 0 });
  });
});
