// What rows of a data set look like, told from the names and types of their columns; and the code that makes conversations of
// them.

import { extname } from 'node:path';
import { ConfigError, SluiceError, messageOf } from '../../errors.js';
import { jsonl } from '../../data/jsonl.js';
import { arrow } from '../../data/arrow.js';
import { ParquetFile } from '../../data/parquet-file.js';
import { expandGlobs } from '../../data/glob.js';
import type { Row } from '../../data/types.js';

export type Task = 'image' | 'audio' | 'mixed' | 'text';
export type Medium = 'image' | 'audio' | 'text';

/** A layout that is known. */
export interface Layout {
  readonly name: string;
  readonly medium: Medium;
  /** TypeScript of the row's type: `{ readonly text: string }`. */
  readonly type: string;
  /** TypeScript of an expression that makes a list of conversations of `row`. */
  readonly samples: string;
  /** Builders that it calls. */
  readonly uses: readonly string[];
  /** What fits its answers: short ones match, transcripts err by words, free ones follow their reference. */
  readonly score: 'exactMatch' | 'wordErrorRate' | 'rougeL';
}

/** Column names and their types as text; no types where the format has none. */
export type Columns = Readonly<Record<string, string>>;

const IMAGE = ['image', 'picture', 'img'];
const AUDIO = ['audio', 'clip', 'speech'];
const SPOKEN = ['text', 'sentence', 'transcription', 'transcript', 'normalized_text'];
const QUESTION = ['question', 'query', 'prompt', 'instruction', 'input'];
const ANSWER = ['answer', 'response', 'completion', 'output', 'label'];
const CAPTION = ['caption', 'text', 'description'];

/** @param columns of the data
 *  @param media that the task is about
 *  @returns the layout, where it is a usual one */
export function layoutOf(columns: Columns, media: readonly Medium[]): Layout | undefined {
  const named = (names: readonly string[]): string | undefined => names.find((name) => isText(columns[name]));
  const [picture, clip] = [cellOf(columns, IMAGE), cellOf(columns, AUDIO)];
  const [question, answer] = [named(QUESTION), named(ANSWER)];
  const found: (Layout | undefined)[] = [
    has(columns, 'images', /^list<struct<.*bytes/) &&
    has(columns, 'texts', /user: string.*assistant: string|^$/)
      ? cauldron
      : undefined,
    has(columns, 'messages', /role: string|^$/)
      ? has(columns, 'images', /^list<struct<.*bytes/)
        ? messagesAboutImages
        : messages
      : undefined,
    clip ? clipLayout(clip, named(SPOKEN)) : undefined,
    picture && question && answer ? asked(picture, question, answer) : undefined,
    picture ? captioned(picture, named(CAPTION)) : undefined,
    !picture && !clip && question && answer ? plain(question, answer) : undefined,
  ];
  return found.find((layout): layout is Layout => layout !== undefined && media.includes(layout.medium));
}

/** What is written where the data cannot be looked at. */
export function assumedLayout(medium: Medium): Layout {
  if (medium === 'image') return cauldron;
  return medium === 'audio' ? clipLayout('audio', 'text')! : messages;
}

export const LAYOUTS =
  'images and texts (as HuggingFaceM4/the_cauldron), messages, audio and text, image with question and answer or caption, ' +
  'question and answer';

/** The columns of data, or why they cannot be told. @throws {ConfigError} when there is no such file on this machine */
export async function columnsOf(files: readonly string[]): Promise<Columns | { readonly unknown: string }> {
  try {
    const [first = ''] = await expandGlobs(files);
    if (extname(first) === '.parquet') return (await ParquetFile.open(first)).columns;
    const rows = sourceOf(first) === 'arrow' ? arrow<Row>(first) : jsonl<Row>(first);
    for await (const item of rows.open(new AbortController().signal)) {
      if ('value' in item) return typesOf(item.value);
    }
    return { unknown: 'it holds no row' };
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    const isHere = files.some((file) => !/^[a-z]+:\/\//i.test(file));
    if (isHere) throw new ConfigError(`--data: ${messageOf(error)}`, { cause: error });
    return { unknown: messageOf(error) };
  }
}

/** The builder that reads such files. @throws {ConfigError} for another kind */
export function sourceOf(file: string): 'parquet' | 'jsonl' | 'arrow' {
  const name = file.replace(/[?#].*$/, '').replace(/\.(gz|zst)$/, '');
  const kind = extname(name).slice(1);
  if (kind === 'parquet' || kind === 'jsonl' || kind === 'arrow') return kind;
  throw new ConfigError({
    where: '--data',
    expected:
      'files of .parquet, .jsonl or .arrow, by path, pattern or address (hf://datasets/owner/name/file.parquet)',
    received: file,
    remedy: 'name such files, or write the pipeline by hand with folder(...) or rows(...)',
  });
}

const cauldron: Layout = {
  name: 'images and texts',
  medium: 'image',
  type: `{
  readonly images: readonly { readonly bytes: Uint8Array }[];
  readonly texts: readonly { readonly user: string; readonly assistant: string }[];
}`,
  samples: `row.texts.map((turn) =>
    chat(
      user(...row.images.map((cell) => image(cell)), text(turn.user)),
      assistant(text(turn.assistant)),
    ),
  )`,
  uses: ['chat', 'user', 'assistant', 'image', 'text'],
  score: 'exactMatch',
};

const TURN = '{ readonly role: string; readonly content: string }';
/** @param media of the first turn of the user */
const turns = (media: string): string => `[
    chat(
      ...row.messages.map(({ role, content }${media ? ', i' : ''}) => {
        if (role === 'assistant') return assistant(text(content));
        if (role === 'system') return system(text(content));
        if (role === 'user') return user(${media}text(content));
        throw new Error(\`a turn of system, user or assistant, not of \${role}\`);
      }),
    ),
  ]`;

const messages: Layout = {
  name: 'messages',
  medium: 'text',
  type: `{ readonly messages: readonly ${TURN}[] }`,
  samples: turns(''),
  uses: ['chat', 'user', 'assistant', 'system', 'text'],
  score: 'rougeL',
};

const messagesAboutImages: Layout = {
  ...messages,
  name: 'messages and images',
  medium: 'image',
  type: `{
  readonly images: readonly { readonly bytes: Uint8Array }[];
  readonly messages: readonly ${TURN}[];
}`,
  samples: turns(
    "...(i === row.messages.findIndex((one) => one.role === 'user') ? row.images.map((cell) => image(cell)) : []), ",
  ),
  uses: [...messages.uses, 'image'],
};

function clipLayout(clip: string, words: string | undefined): Layout | undefined {
  if (words === undefined) return undefined;
  return {
    name: `${clip} and ${words}`,
    medium: 'audio',
    type: `{ readonly ${clip}: { readonly bytes: Uint8Array }; readonly ${words}: string }`,
    samples: `[chat(user(audio(row.${clip}), text('Write down what is said.')), assistant(text(row.${words})))]`,
    uses: ['chat', 'user', 'assistant', 'audio', 'text'],
    score: 'wordErrorRate',
  };
}

function asked(picture: string, question: string, answer: string): Layout {
  return {
    name: `${picture}, ${question} and ${answer}`,
    medium: 'image',
    type: `{ readonly ${picture}: { readonly bytes: Uint8Array }; readonly ${question}: string; readonly ${answer}: string }`,
    samples: `[chat(user(image(row.${picture}), text(row.${question})), assistant(text(row.${answer})))]`,
    uses: ['chat', 'user', 'assistant', 'image', 'text'],
    score: 'exactMatch',
  };
}

function captioned(picture: string, caption: string | undefined): Layout | undefined {
  if (caption === undefined) return undefined;
  return {
    name: `${picture} and ${caption}`,
    medium: 'image',
    type: `{ readonly ${picture}: { readonly bytes: Uint8Array }; readonly ${caption}: string }`,
    samples: `[chat(user(image(row.${picture}), text('Describe this picture.')), assistant(text(row.${caption})))]`,
    uses: ['chat', 'user', 'assistant', 'image', 'text'],
    score: 'rougeL',
  };
}

function plain(question: string, answer: string): Layout {
  return {
    name: `${question} and ${answer}`,
    medium: 'text',
    type: `{ readonly ${question}: string; readonly ${answer}: string }`,
    samples: `[chat(user(text(row.${question})), assistant(text(row.${answer})))]`,
    uses: ['chat', 'user', 'assistant', 'text'],
    score: 'rougeL',
  };
}

/** A column of encoded media: bytes, or { bytes, path }. */
function cellOf(columns: Columns, names: readonly string[]): string | undefined {
  return names.find((name) => /^struct<.*bytes/.test(columns[name] ?? ''));
}

function isText(type: string | undefined): boolean {
  return type === 'string';
}

function has(columns: Columns, name: string, type: RegExp): boolean {
  return Object.hasOwn(columns, name) && type.test(columns[name] ?? '');
}

/** Types of a row's values, as Parquet would tell them. */
function typesOf(row: Row): Columns {
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, typeOf(value)]));
}

function typeOf(value: unknown): string {
  if (value instanceof Uint8Array) return 'binary';
  if (Array.isArray(value)) return `list<${typeOf(value[0])}>`;
  if (typeof value !== 'object' || value === null) return typeof value;
  const fields = Object.entries(value).map(([name, inner]) => `${name}: ${typeOf(inner)}`);
  return `struct<${fields.join(', ')}>`;
}
