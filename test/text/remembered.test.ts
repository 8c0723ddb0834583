import { describe, expect, it } from 'vitest';
import { Remembered } from '../../src/text/remembered.js';

/** A memory that says which keys it had to make. */
function memory(size: number) {
  const made: string[] = [];
  const remembered = new Remembered(size);
  const get = (key: string): string =>
    remembered.get(key, () => {
      made.push(key);
      return key.toUpperCase();
    });
  return { made, get };
}

describe('a remembered text', () => {
  it('is made once', () => {
    const { made, get } = memory(100);
    expect([get('a'), get('b'), get('a')]).toEqual(['A', 'B', 'A']);
    expect(made).toEqual(['a', 'b']);
  });

  it('is forgotten when others were used since, and no longer than it takes to be within the bound', () => {
    const { made, get } = memory(12); // two of three characters
    for (const key of ['abc', 'def', 'abc', 'ghi', 'abc', 'def']) get(key);
    expect(made).toEqual(['abc', 'def', 'ghi', 'def']);
  });

  it('that is larger than the bound is made each time', () => {
    const { made, get } = memory(5);
    expect([get('abc'), get('abc'), get('a')]).toEqual(['ABC', 'ABC', 'A']);
    expect(made).toEqual(['abc', 'abc', 'a']);
  });

  it('that cannot be made is tried again', () => {
    const remembered = new Remembered(10);
    const fail = () => {
      throw new Error('no');
    };
    expect(() => remembered.get('a', fail)).toThrow('no');
    expect(remembered.get('a', () => 'b')).toBe('b');
  });
});
