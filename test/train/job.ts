// A job small enough for tests: a Gemma 3n of some ten thousand parameters with an image tower, and questions about
// pictures of one colour, in Parquet files that the tests write.

import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parquetWriteFile } from 'hyparquet-writer';
import sharp from 'sharp';

const fixture = (path: string) => fileURLToPath(new URL(`../../fixtures/${path}`, import.meta.url));

const folders: string[] = [];
process.once('exit', () => folders.forEach((folder) => fs.rmSync(folder, { recursive: true, force: true })));

/** A folder of its own, removed when the process ends. */
export function temporaryFolder(): string {
  const folder = fs.mkdtempSync(join(tmpdir(), 'sluice-train-'));
  folders.push(folder);
  return folder;
}

let model: string | undefined;

/** A model folder without weights: the fixture's tokenizer and processor, and a smaller model's configuration. */
export function modelFolder(): string {
  if (model) return model;
  model = temporaryFolder();
  for (const name of fs.readdirSync(fixture('tiny-gemma3n'))) {
    if (/tokenizer|processor|chat_template|special_tokens/.test(name) && !name.endsWith('.py'))
      fs.copyFileSync(join(fixture('tiny-gemma3n'), name), join(model, name));
  }
  fs.writeFileSync(join(model, 'config.json'), JSON.stringify(smallConfig()));
  return model;
}

/** The configuration of a recorded model, fitted to the fixture's tokenizer. */
export function smallConfig(): Record<string, unknown> {
  const json = fs.readFileSync(fixture('reference/multimodal-plain/config.json'), 'utf8');
  const config = JSON.parse(json) as Record<string, Record<string, unknown>>;
  const { text_config, vision_config, audio_config: _audio, ...rest } = config;
  return {
    ...rest,
    text_config: { ...text_config, vocab_size: 400, vocab_size_per_layer_input: 384, sliding_window: 16 },
    vision_config: {
      ...vision_config,
      vocab_offset: 384,
      model_args: { ...(vision_config!['model_args'] as object), msfa_output_resolution: 4 },
    },
    vision_soft_tokens_per_image: 16,
    boi_token_id: 6,
    eoi_token_id: 384,
    image_token_id: 385,
    boa_token_id: 7,
    eoa_token_id: 392,
    audio_token_id: 393,
  };
}

export const COLOURS = ['red', 'blue', 'green', 'black'] as const;
const RGB = { red: '#ff0000', blue: '#0000ff', green: '#00ff00', black: '#000000' };

/** A PNG of 64 by 64 in one colour. */
export async function picture(colour: (typeof COLOURS)[number]): Promise<Uint8Array> {
  const image = sharp({ create: { width: 64, height: 64, channels: 3, background: RGB[colour] } });
  return image.png().toBuffer();
}

export interface ColourRow {
  readonly image: Uint8Array | null;
  readonly question: string | null;
  readonly answer: string;
}

/** Rows about pictures, in turn of each colour. */
export async function colourRows(count: number): Promise<ColourRow[]> {
  const pictures = await Promise.all(COLOURS.map(picture));
  return Array.from({ length: count }, (_, i) => ({
    image: pictures[i % COLOURS.length]!,
    question: 'what color is the shape?',
    answer: COLOURS[i % COLOURS.length]!,
  }));
}

/** Writes rows as Parquet. @returns the path */
export function writeRows(path: string, rows: readonly ColourRow[], rowGroupSize = 16): string {
  const column = (name: keyof ColourRow, type: 'BYTE_ARRAY' | 'STRING') => ({
    name,
    type,
    data: rows.map((row) => row[name]),
    nullable: true,
  });
  parquetWriteFile({
    filename: path,
    rowGroupSize,
    columnData: [column('image', 'BYTE_ARRAY'), column('question', 'STRING'), column('answer', 'STRING')],
  });
  return path;
}

/** The lines of metrics.jsonl, or of `--json`. */
export function eventsIn(text: string): { event: string; [key: string]: unknown }[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { event: string });
}

export function metricsOf(outDir: string): ReturnType<typeof eventsIn> {
  return eventsIn(fs.readFileSync(join(outDir, 'metrics.jsonl'), 'utf8'));
}
