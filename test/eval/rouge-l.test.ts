// ROUGE-L against values worked out by hand, those of Lin's paper (section 3.1) among them.

import { describe, expect, it } from 'vitest';
import { rougeL } from '../../src/eval/index.js';
import { rougeLOf } from '../../src/eval/rouge-l.js';
import { make } from '../../src/parts.js';

describe('rougeL', () => {
  it.each([
    // Lin's S1, S2, S3 and S4: order tells "police kill the gunman" from "the gunman kill police"
    ['police kill the gunman', 'police killed the gunman', 3 / 4],
    ['the gunman kill police', 'police killed the gunman', 2 / 4],
    ['the gunman police killed', 'police killed the gunman', 2 / 4],
    // P = 3/3, R = 3/5
    ['one three five', 'one two three four five', 6 / 8],
    // P = 2/6, R = 2/2
    ['well, I say: yes. It is', 'Yes, is', 4 / 8],
    ['the same', 'The  same!', 1],
    ['Größe 12', 'größe 12', 1],
    ['a', 'b', 0],
    ['', 'b', 0],
    ['a', '', 0],
    ['...', '...', 0],
  ])('of %j for %j is %d', (answer, reference, value) => {
    expect(rougeLOf(answer, reference)).toBeCloseTo(value, 12);
  });

  it('is the mean over answers, also by a tag', () => {
    const score = make(rougeL({ by: 'task' }), undefined);
    expect(score.result()).toEqual({});
    score.add('one two', { prompt: '', reference: 'one two', tags: { task: 'a' } });
    score.add('one', { prompt: '', reference: 'two', tags: { task: 'b' } });
    score.add('one', { prompt: '', reference: 'one two three', tags: {} });
    expect(score.result()).toEqual({ rougeL: (1 + 0 + 0.5) / 3, 'rougeL:a': 1, 'rougeL:b': 0 });
    expect(score.names).toEqual(['rougeL', 'rougeL:*']);
  });
});
