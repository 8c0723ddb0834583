// Batches of plain arrays, for a model that is not ours: pictures with their class, and `arrays`, which gathers examples.

import sharp from 'sharp';
import { DataError } from '../errors.js';
import { batch as gather, orderedMap } from '../flow/index.js';
import type { Stage } from '../flow/types.js';
import { type Part, definePart } from '../parts.js';
import { z } from '../schema.js';
import { decodedImage } from './media-arrays.js';
import type { NdArray, Sample, Target } from './types.js';

export type PlainArray = NdArray<Float32Array | Int32Array | Uint8Array>;

/** One example: arrays by name, without a dimension for the batch. */
export interface ArrayExample {
  readonly arrays: Readonly<Record<string, PlainArray>>;
  /** What an evaluation compares the answer with. */
  readonly target?: Target;
}

/** Several examples, each array with a first dimension for the batch. */
export interface ArrayBatch {
  readonly arrays: Readonly<Record<string, PlainArray>>;
  readonly numSamples: number;
  /** One a sample, where all have one. */
  readonly targets?: readonly Target[];
}

interface Purpose {
  readonly purpose: 'train' | 'evaluate';
}

const labelledImagesPart = definePart({
  role: 'stage',
  kind: 'labelledImages',
  schema: z.strictObject({
    size: z.int().positive(),
    classes: z
      .array(z.string().min(1))
      .min(2)
      .refine((names) => new Set(names).size === names.length, 'expected no name twice'),
  }),
  create: ({ size, classes }, { purpose }: Purpose): Stage<Sample, ArrayExample> => {
    const numbers = new Map(classes.map((name, number) => [name, number]));
    return orderedMap((sample: Sample) => labelled(sample, size, numbers, purpose), {
      name: 'labelledImages',
      concurrency: { upTo: 4 },
      itemBytes: 3 * size * size * Float32Array.BYTES_PER_ELEMENT,
      weigh: exampleBytes,
    });
  },
});

/** Conversations about one picture to `inputs`, float32 [size, size, 3] in [0, 1], and `labels`, the number of the class that
 *  the last turn names. One without a picture, or that names no class, is quarantined. */
export function labelledImages(options: {
  /** Pictures are scaled to this width and height, whatever their own shape. */
  readonly size: number;
  /** The answers that there are. */
  readonly classes: readonly string[];
}): Part<'stage', Purpose, Stage<Sample, ArrayExample>> {
  return labelledImagesPart({ ...options, classes: [...options.classes] });
}

async function labelled(
  { messages, tags = {} }: Sample,
  size: number,
  numbers: ReadonlyMap<string, number>,
  purpose: Purpose['purpose'],
): Promise<ArrayExample> {
  const parts = messages.flatMap(({ role, content }) => content.map((part) => ({ role, part })));
  const picture = parts.flatMap(({ part }) => (part.type === 'image' ? [part.image] : []))[0];
  const textOf = (of: string) =>
    parts.flatMap(({ role, part }) => (role === of && part.type === 'text' ? [part.text] : [])).join(' ');
  const reference = textOf('assistant').trim();
  const label = numbers.get(reference);
  if (picture === undefined || label === undefined) {
    throw new DataError({
      where: 'labelledImages',
      expected: picture ? `an answer among ${[...numbers.keys()].join(', ')}` : 'a picture',
      received: picture ? `'${reference}'` : 'none',
      remedy: 'correct the row, or leave such rows out with filter()',
    });
  }
  const image = await decodedImage(picture, 0);
  const { data, width, height } = image;
  const pixels = await sharp(data, { raw: { width, height, channels: 3 } })
    .resize(size, size, { fit: 'fill' })
    .raw()
    .toBuffer();
  return {
    arrays: {
      inputs: { data: Float32Array.from(pixels, (value) => value / 255), shape: [size, size, 3] },
      labels: { data: Int32Array.of(label), shape: [] },
    },
    ...(purpose === 'evaluate' && { target: { prompt: textOf('user'), reference, tags, image } }),
  };
}

const arraysPart = definePart({
  role: 'stage',
  kind: 'arrays',
  schema: z.strictObject({ size: z.int().positive(), dropLast: z.boolean().default(false) }),
  create: ({ size, dropLast }, _context: unknown): Stage<ArrayExample, ArrayBatch> =>
    gather({ size }, joined, { name: 'arrays', dropLast, weigh: bytesOf, weighItem: exampleBytes }),
});

/** Gathers examples of equal names and shapes; one that differs from the batch's first is quarantined.
 *  @example arrays({ size: 32 }) */
export function arrays(options: {
  readonly size: number;
  /** Leaves out a last batch that did not get full. */
  readonly dropLast?: boolean;
}): Part<'stage', unknown, Stage<ArrayExample, ArrayBatch>> {
  return arraysPart(options);
}

/** The example that does not fit, for `batch` to quarantine. */
class ArraysError extends DataError {
  constructor(
    readonly index: number,
    expected: string,
    received: string,
  ) {
    super({
      where: 'arrays',
      expected,
      received,
      remedy: 'give each example the same arrays, of the same types and shapes',
    });
  }
}

function joined(examples: readonly ArrayExample[]): ArrayBatch {
  const first = examples[0]!;
  const expected = described(first);
  for (const [index, example] of examples.entries()) {
    if (described(example) !== expected) throw new ArraysError(index, expected, described(example));
  }
  const stacked = Object.entries(first.arrays).map(([name, { data, shape }]) => {
    const all = new (data.constructor as Float32ArrayConstructor)(data.length * examples.length);
    examples.forEach((example, i) => all.set(example.arrays[name]!.data, i * data.length));
    return [name, { data: all, shape: [examples.length, ...shape] }] as const;
  });
  const targets = examples.flatMap(({ target }) => (target ? [target] : []));
  return {
    arrays: Object.fromEntries(stacked),
    numSamples: examples.length,
    ...(targets.length === examples.length && { targets }),
  };
}

/** 'inputs Float32Array [32, 32, 3], labels Int32Array []' */
function described({ arrays }: ArrayExample): string {
  const each = Object.entries(arrays).map(
    ([name, { data, shape }]) => `${name} ${data.constructor.name} [${shape.join(', ')}]`,
  );
  return each.sort().join(', ') || 'no array';
}

function bytesOf({ arrays }: Pick<ArrayExample, 'arrays'>): number {
  return Object.values(arrays).reduce((sum, { data }) => sum + data.byteLength, 0);
}

/** With the picture that an evaluation keeps. */
function exampleBytes(example: ArrayExample): number {
  return bytesOf(example) + (example.target?.image?.data.byteLength ?? 0);
}
