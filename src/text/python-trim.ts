// Python's str.strip. Its whitespace and that of JavaScript's trim differ: byte order marks are Python's letters, and the
// separators U+001C to U+001F and the next-line control U+0085 are its space.

const SPACE = /[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/** Where the text without space around it begins and ends; both 0 where all is space. */
export function trimmedBounds(text: string): readonly [start: number, end: number] {
  let end = text.length;
  while (end > 0 && SPACE.test(text[end - 1]!)) end--;
  let start = 0;
  while (start < end && SPACE.test(text[start]!)) start++;
  return [start, end];
}

export function pythonTrim(text: string): string {
  return text.slice(...trimmedBounds(text));
}
