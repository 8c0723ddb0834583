// The reference's values for conversations with audio, as test/reference/processor-audio.py wrote them.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { MessageInput } from '../../src/data/processor.js';
import type { DecodedAudio } from '../../src/data/types.js';
import { pictureBytes } from './processor-values.js';
import { wave, type WaveSpec } from './waves.js';

const folder = fileURLToPath(new URL('../../fixtures/reference/processor-audio', import.meta.url));
/** A processor as transformers 5 writes it: all in processor_config.json, 256 tokens an image and 188 a clip. */
export const publishedFolder = join(folder, 'published');

/** Values, each with how often it comes in a row. */
type Runs = readonly (readonly [value: number, times: number])[];

interface PartSpec {
  readonly type: 'text' | 'image' | 'audio';
  readonly text?: string;
  readonly image?: string;
  readonly audio?: string;
}

export interface AudioCase {
  readonly name: string;
  readonly messages: readonly {
    readonly role: 'system' | 'user' | 'assistant';
    readonly content: string | readonly PartSpec[];
  }[];
  readonly addGenerationPrompt: boolean;
  readonly images: readonly string[];
  readonly clips: readonly string[];
  readonly prompt: string;
  /** With the tiny folder's numbers of soft tokens. */
  readonly ids: Runs;
  /** With the published ones. */
  readonly published: Runs;
  readonly labels?: Runs;
  readonly frames?: number;
  /** Real frames of each clip. */
  readonly mask?: readonly number[];
}

/** What is stored of a clip's features. */
export interface StoredFeatures {
  /** First, middle and last. [3, melBins] */
  readonly frames: Float32Array;
  readonly mean: number;
}

const values = JSON.parse(readFileSync(join(folder, 'cases.json'), 'utf8')) as {
  readonly clips: Readonly<Record<string, WaveSpec>>;
  readonly cases: readonly AudioCase[];
};
const blob = readFileSync(join(folder, 'features.bin'));
const floats = new Float32Array(blob.buffer.slice(blob.byteOffset, blob.byteOffset + blob.length));

const PER_CLIP = 3 * 128 + 1;
let offset = 0;
/** Each case with its clips' features. */
export const audioCases = values.cases.map((entry) => ({
  ...entry,
  features: entry.clips.map((): StoredFeatures => {
    const at = offset;
    offset += PER_CLIP;
    return { frames: floats.subarray(at, at + PER_CLIP - 1), mean: floats[at + PER_CLIP - 1]! };
  }),
}));

export function unrolled(runs: Runs): number[] {
  return runs.flatMap(([value, times]) => Array<number>(times).fill(value));
}

const waves = new Map<string, DecodedAudio>();

export function clipOf(name: string): DecodedAudio {
  const known = waves.get(name);
  if (known) return known;
  const clip = { data: wave(values.clips[name]!), sampleRateHz: 16_000 };
  waves.set(name, clip);
  return clip;
}

/** The case's messages with the media in them. */
export function audioMessagesOf({ messages }: AudioCase): MessageInput[] {
  return messages.map(({ role, content }) => ({
    role,
    content:
      typeof content === 'string'
        ? content
        : content.map(({ text, image, audio }) => {
            if (image !== undefined) return { type: 'image' as const, image: pictureBytes(image) };
            if (audio !== undefined) return { type: 'audio' as const, audio: clipOf(audio) };
            return { type: 'text' as const, text: text! };
          }),
  }));
}
