// Text alone, for the pipeline that mixes: numbers in words and in digits, made from the rows of fixtures/spoken-digits.

import { type Sample, assistant, chat, text, user } from 'sluice';

const WORDS = 'zero one two three four five six seven eight nine'.split(' ');

/** "digits: three one seven" -> "317", and "words: 317" -> "three one seven". */
export function digitWords({ text: words }: { readonly text: string }): Sample[] {
  const digits = words
    .split(' ')
    .map((word) => WORDS.indexOf(word))
    .join('');
  return [
    { ...chat(user(text(`digits: ${words}`)), assistant(text(digits))), tags: { task: 'to digits' } },
    { ...chat(user(text(`words: ${digits}`)), assistant(text(words))), tags: { task: 'to words' } },
  ];
}
