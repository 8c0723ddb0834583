// What the easy-VQA pipelines share: rows of fixtures/easy-vqa to conversations. A row is a picture with its questions.

import { type Sample, assistant, chat, image, text, user } from 'sluice';

/** A row of train.parquet and test.parquet, as the_cauldron lays its sets out. */
export interface EasyVqaRow {
  readonly images: readonly { readonly bytes: Uint8Array; readonly path: string }[];
  readonly texts: readonly { readonly user: string; readonly assistant: string }[];
}

/** The three kinds of question. */
export type QuestionKind = 'yes/no' | 'shape' | 'colour';

const SHAPES = ['circle', 'rectangle', 'triangle'];

/** Told from the answer, one of 13. */
export function questionKind(answer: string): QuestionKind {
  if (answer === 'yes' || answer === 'no') return 'yes/no';
  return SHAPES.includes(answer) ? 'shape' : 'colour';
}

/** A sample a question, for evaluation and for training on one kind. */
export function questions({ images, texts }: EasyVqaRow, kinds?: readonly QuestionKind[]): Sample[] {
  return texts
    .filter((turn) => !kinds || kinds.includes(questionKind(turn.assistant)))
    .map((turn) => ({
      ...chat(user(image(images[0]!.bytes), text(turn.user)), assistant(text(turn.assistant))),
      tags: { kind: questionKind(turn.assistant) },
    }));
}

const COLOURS = ['black', 'blue', 'brown', 'gray', 'green', 'red', 'teal', 'yellow'];

/** What a picture shows, as far as its questions and answers tell. */
export interface Facts {
  readonly colour: string;
  readonly shape: string;
}

/** Reads colour and shape off the questions: an answer names one, and a yes (or a denied negation) affirms the words of
 *  its question. Undefined where they leave one open. */
export function factsOf({ texts }: EasyVqaRow): Facts | undefined {
  const affirmed = texts.flatMap((turn) => {
    if (questionKind(turn.assistant) !== 'yes/no') return [turn.user, turn.assistant];
    const negated = /\b(not|no)\b/.test(turn.user);
    return (turn.assistant === 'yes') !== negated ? [turn.user] : [];
  });
  const words = new Set(affirmed.join(' ').match(/[a-z]+/g));
  const colour = COLOURS.find((word) => words.has(word));
  const shape = SHAPES.find((word) => words.has(word));
  return colour && shape ? { colour, shape } : undefined;
}

/** The picture with a caption, `a red triangle`; none where its facts are open. */
export function captions(row: EasyVqaRow): Sample[] {
  const facts = factsOf(row);
  if (!facts) return [];
  const caption = `a ${facts.colour} ${facts.shape}`;
  return [chat(user(image(row.images[0]!.bytes)), assistant(text(caption)))];
}
