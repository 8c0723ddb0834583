// The samples of a scan as columns of numbers: small enough to be kept for millions of rows, and to be written down.

import { IGNORED } from '../data/collate.js';
import { blankBytes, blankFloats } from '../data/blank.js';
import type { Example } from '../data/types.js';
import type { Scanned } from './plan-scan.js';

/** Numbers a sample; -1 stands for "none". */
const NAMES = [
  ...['file', 'rowGroup', 'row', 'item', 'epoch', 'mixed', 'outcome', 'error', 'numWeights'],
  ...[
    'tokens',
    'labels',
    'images',
    'height',
    'width',
    'clips',
    'frames',
    'bins',
    'heard',
    'target',
    'notices',
  ],
] as const;
type Name = (typeof NAMES)[number];

const OUTCOMES = ['made', 'dropped', 'quarantined'] as const;

/** What a scan knows of one sample. */
export interface SampleFacts extends Omit<Scanned, 'value'> {
  readonly tokens: number;
  /** Positions that the loss counts. */
  readonly labels: number;
  readonly images: number;
  readonly clips: number;
  /** Frames of features that are sound, not padding. */
  readonly heard: number;
  /** What is left out of it. */
  readonly notices: number;
  /** Its example, the arrays blank: right in shape and number of labels. Of a sample that was made. */
  readonly example: () => Example;
}

/** A growing list of samples. */
export class ScanColumns {
  readonly #columns: Record<Name, number[]>;
  readonly #weights: number[][];
  readonly #reserves: number[][];
  readonly #texts = new Texts();

  /** @param numStages before the batches */
  constructor(readonly numStages: number) {
    this.#columns = Object.fromEntries(NAMES.map((name) => [name, [] as number[]])) as Record<Name, number[]>;
    this.#weights = Array.from({ length: numStages + 1 }, () => []);
    this.#reserves = Array.from({ length: numStages }, () => []);
  }

  get length(): number {
    return this.#columns.file.length;
  }

  push(sample: Scanned): void {
    const { origin, weights, reserves } = sample;
    const columns = this.#columns;
    const add = (name: Name, value: number | undefined): void => void columns[name].push(value ?? -1);
    add('file', this.#texts.numberOf(origin.file));
    add('rowGroup', origin.rowGroup);
    add('row', origin.row);
    add('item', sample.item);
    add('epoch', sample.epoch);
    add('mixed', sample.mixed);
    add('outcome', OUTCOMES.indexOf(sample.outcome));
    add('error', sample.error === undefined ? undefined : this.#texts.numberOf(sample.error));
    add('numWeights', weights.length);
    this.#weights.forEach((column, i) => column.push(weights[i] ?? 0));
    this.#reserves.forEach((column, i) => column.push(reserves[i] ?? column.at(-1) ?? 0));
    const { inputIds, labels, pixelValues, inputFeatures, inputFeaturesMask, target, notices } =
      (sample.outcome === 'made' ? (sample.value as Partial<Example> | null) : undefined) ?? {};
    const [images, , height, width] = pixelValues?.shape ?? [];
    const [clips, frames, bins] = inputFeatures?.shape ?? [];
    add('tokens', inputIds?.length);
    add('labels', labels && countLabels(labels));
    add('images', images);
    add('height', height);
    add('width', width);
    add('clips', clips);
    add('frames', frames);
    add('bins', bins);
    add(
      'heard',
      inputFeaturesMask?.data.reduce((sum, one) => sum + one, 0),
    );
    add('target', target && 1);
    add('notices', notices?.length);
  }

  at(index: number): SampleFacts {
    const get = (name: Name): number => this.#columns[name][index] ?? -1;
    const numWeights = get('numWeights');
    const error = get('error');
    const count = (name: Name): number => Math.max(0, get(name));
    return {
      origin: { file: this.#texts.at(get('file')), rowGroup: get('rowGroup'), row: get('row') },
      item: get('item'),
      epoch: get('epoch'),
      mixed: get('mixed'),
      outcome: OUTCOMES[get('outcome')] ?? 'dropped',
      ...(error >= 0 && { error: this.#texts.at(error) }),
      weights: this.#weights.slice(0, numWeights).map((column) => column[index] ?? 0),
      reserves: this.#reserves.slice(0, Math.max(0, numWeights - 1)).map((column) => column[index] ?? 0),
      tokens: count('tokens'),
      labels: count('labels'),
      images: count('images'),
      clips: count('clips'),
      heard: count('heard'),
      notices: count('notices'),
      example: () => blankExample(get),
    };
  }

  /** All of it as plain JSON. */
  toJson(): Record<string, unknown> {
    return {
      numStages: this.numStages,
      length: this.length,
      texts: this.#texts.list,
      columns: Object.fromEntries(this.#all().map(([name, column]) => [name, packed(column)])),
    };
  }

  /** @returns undefined for what `toJson` has not made */
  static fromJson(value: unknown, numStages: number): ScanColumns | undefined {
    const json = value as {
      numStages?: unknown;
      length?: unknown;
      texts?: unknown;
      columns?: unknown;
    } | null;
    if (typeof json !== 'object' || json === null || json.numStages !== numStages) return undefined;
    const { length, texts, columns: given } = json;
    if (!isCount(length) || !Array.isArray(texts) || !texts.every((text) => typeof text === 'string'))
      return undefined;
    const made = new ScanColumns(numStages);
    for (const text of texts) made.#texts.numberOf(text);
    for (const [name, column] of made.#all()) {
      const numbers = unpacked((given as Record<string, unknown> | null)?.[name], length);
      if (!numbers) return undefined;
      for (const number of numbers) column.push(number);
    }
    const { file, error, outcome, numWeights, labels, tokens } = made.#columns;
    const within = (column: number[], least: number, most: number): boolean =>
      column.every((number) => number >= least && number <= most);
    const sound =
      made.#texts.list.length === texts.length &&
      within(file, 0, texts.length - 1) &&
      within(error, -1, texts.length - 1) &&
      within(outcome, 0, OUTCOMES.length - 1) &&
      within(numWeights, 0, numStages + 1) &&
      outcome.every((one, i) => one !== 0 || numWeights[i] === numStages + 1) &&
      within(tokens, -1, MOST_TOKENS) &&
      labels.every((count, i) => count <= Math.max(0, tokens[i]! - 1));
    return sound ? made : undefined;
  }

  #all(): [string, number[]][] {
    return [
      ...NAMES.map((name): [string, number[]] => [name, this.#columns[name]]),
      ...this.#weights.map((column, i): [string, number[]] => [`weight${i}`, column]),
      ...this.#reserves.map((column, i): [string, number[]] => [`reserve${i}`, column]),
    ];
  }
}

/** A longer sample is no sample of ours. */
const MOST_TOKENS = 2 ** 26;

/** Each text once. */
class Texts {
  readonly list: string[] = [];
  readonly #numbers = new Map<string, number>();

  numberOf(text: string): number {
    const known = this.#numbers.get(text);
    if (known !== undefined) return known;
    this.#numbers.set(text, this.list.length);
    return this.list.push(text) - 1;
  }

  at(number: number): string {
    return this.list[number] ?? '';
  }
}

/** As a batch counts them: nothing precedes the first position. */
function countLabels(labels: Int32Array): number {
  let count = 0;
  for (let i = 1; i < labels.length; i++) if (labels[i] !== IGNORED) count += 1;
  return count;
}

function blankExample(get: (name: Name) => number): Example {
  const [tokens, labels, images, clips] = [get('tokens'), get('labels'), get('images'), get('clips')];
  const [height, width, frames, bins] = [get('height'), get('width'), get('frames'), get('bins')];
  return {
    inputIds: new Int32Array(Math.max(0, tokens)),
    ...(labels >= 0 && { labels: new Int32Array(tokens).fill(IGNORED).fill(0, tokens - labels) }),
    ...(images >= 0 && {
      pixelValues: { data: blankFloats(images * 3 * height * width), shape: [images, 3, height, width] },
    }),
    ...(clips >= 0 && {
      inputFeatures: { data: blankFloats(clips * frames * bins), shape: [clips, frames, bins] },
      inputFeaturesMask: { data: blankBytes(clips * frames), shape: [clips, frames] },
    }),
    ...(get('target') >= 0 && { target: { prompt: '', reference: '', tags: {} } }),
  };
}

/** Numbers, or runs of them where that is shorter: { runs: [value, count, value, count, ...] }. */
type Packed = readonly number[] | { readonly runs: readonly number[] };

function packed(column: readonly number[]): Packed {
  const runs: number[] = [];
  for (const value of column) {
    if (runs.at(-2) === value && runs.length > 0) runs[runs.length - 1]! += 1;
    else runs.push(value, 1);
    if (runs.length >= column.length) return column;
  }
  return { runs };
}

function unpacked(value: unknown, length: number): number[] | undefined {
  if (Array.isArray(value)) return value.length === length && value.every(isWhole) ? value : undefined;
  const { runs } = (value ?? {}) as { runs?: unknown };
  if (!Array.isArray(runs) || runs.length % 2 !== 0 || !runs.every(isWhole)) return undefined;
  let total = 0;
  for (let i = 1; i < runs.length; i += 2) {
    if (runs[i]! < 1) return undefined;
    total += runs[i]!;
  }
  if (total !== length) return undefined;
  return runs.flatMap((number, i) => (i % 2 === 0 ? new Array<number>(runs[i + 1]!).fill(number) : []));
}

const isWhole = (value: unknown): value is number => Number.isSafeInteger(value);
const isCount = (value: unknown): value is number => isWhole(value) && value >= 0 && value <= 2 ** 24;
