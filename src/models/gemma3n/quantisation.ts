// How frozen weights of Gemma 3n are quantised: the options, what a model was quantised by, and the file that tells it of an
// adapter's base.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readStrictJson } from '../../checkpoint/index.js';
import { ConfigError } from '../../errors.js';
import { BLOCK_SIZES, WEIGHT_FORMATS } from '../../nn/index.js';
import { decode, z } from '../../schema.js';
import type { EmbeddingsPlace } from './mapped-embeddings.js';
import type { Gemma3n } from './model.js';

const options = z.strictObject({
  /** 'nf4', of 4.13 bits a number, or 'int8'. */
  format: z.enum(WEIGHT_FORMATS),
  /** Whether the embedding tables and the output head are quantised too. */
  embeddings: z.boolean().default(false),
  /** Whether the audio and image tower are quantised too. */
  towers: z.boolean().default(false),
  /** Of NF4: whether the scales are quantised in their turn. */
  doubleQuantise: z.boolean().default(true),
  /** Of NF4: numbers that share a scale. */
  blockSize: z.literal([...BLOCK_SIZES]).default(64),
});

/** What is quantised, and how: plain values. */
export type Quantisation = z.output<typeof options>;
/** 'nf4', 'int8', or an object that says more. */
export type QuantiseOptions = Quantisation['format'] | z.input<typeof options>;

/** Not a union, whose fault would name no path within the object. */
function slot<T>(isNone: (value: unknown) => boolean): z.ZodType<Quantisation | T, QuantiseOptions | T> {
  return z.unknown().transform((value, context) => {
    if (isNone(value)) return value;
    const isText = typeof value === 'string';
    const result = isText
      ? z.enum(WEIGHT_FORMATS).safeParse(value, { reportInput: true })
      : options.safeParse(value, { reportInput: true });
    if (result.success) return isText ? options.parse({ format: value }) : result.data;
    for (const issue of result.error.issues) context.issues.push({ ...issue, input: issue.input } as never);
    return z.NEVER;
  }) as unknown as z.ZodType<Quantisation | T, QuantiseOptions | T>;
}

/** As an option that says how. */
export const QUANTISATION = slot<never>(() => false);
/** As an option of what loads a model; false is none, whatever an adapter's folder says of its base. */
export const QUANTISE = slot<false>((value) => value === false);

const ofModels = new WeakMap<Gemma3n, Quantisation>();

/** Sets down how a model's weights were quantised. */
export function setQuantisation(model: Gemma3n, quantisation: Quantisation): void {
  ofModels.set(model, quantisation);
}

/** How a model's weights are quantised, if they are. */
export function quantisationOf(model: Gemma3n): Quantisation | undefined {
  return ofModels.get(model);
}

/** @throws {ConfigError} where a model's weights are not all numbers */
export function refuseQuantised(model: Gemma3n, where: string, expected: string): void {
  const quantisation = ofModels.get(model);
  if (!quantisation) return;
  throw new ConfigError({
    where,
    expected,
    received: `weights in ${quantisation.format}`,
    remedy:
      "load the model with quantise: false (fromPretrained('CHECKPOINT', { quantise: false }) also of an adapter's folder), " +
      'and do it there',
  });
}

/** Tables that stay in their file stay as they are there.
 *  @throws {ConfigError} */
export function refuseMappedAndQuantised(
  where: string,
  { embeddings }: Pick<Quantisation, 'embeddings'>,
  place: EmbeddingsPlace,
): void {
  if (!embeddings || place === 'device') return;
  throw new ConfigError({
    where,
    expected: "embeddings on the device, to be quantised, or embeddings: 'mapped', to stay in their file",
    received: `both (embeddings: '${place}')`,
    remedy: 'leave one of the two out',
  });
}

/** Of an adapter's folder whose base was quantised while it learnt. PEFT does not read it. */
export const QUANTISE_FILE = 'quantise.json';
const MOST_BYTES = 2 ** 16;

/** The file beside an adapter's, where its base is quantised. */
export function quantiseText(model: Gemma3n): string | undefined {
  const quantisation = ofModels.get(model);
  return quantisation && `${JSON.stringify(quantisation, undefined, 2)}\n`;
}

/** How the base of an adapter's folder was quantised, if it was.
 *  @throws {CheckpointError} when the file is no JSON, {ConfigError} naming every faulty key */
export function readQuantise(folder: string): Quantisation | undefined {
  const path = join(folder, QUANTISE_FILE);
  if (!existsSync(path)) return undefined;
  const json = readStrictJson(path, "how an adapter's base was quantised, in JSON", MOST_BYTES);
  return decode(QUANTISATION, json, path);
}

/** The same in words, in the order of the keys: 'nf4, blocks of 64, embeddings'. */
export function describeQuantisation(quantisation: Quantisation | undefined): string {
  if (!quantisation) return 'none';
  const { format, embeddings, towers, doubleQuantise, blockSize } = quantisation;
  const ofNf4 =
    format === 'nf4' ? [`blocks of ${blockSize}`, ...(doubleQuantise ? [] : ['scales in float32'])] : [];
  return [format, ...ofNf4, ...(embeddings ? ['embeddings'] : []), ...(towers ? ['towers'] : [])].join(', ');
}
