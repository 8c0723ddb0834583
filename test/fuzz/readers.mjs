// A process that gives damaged files to one reader: `node readers.mjs READER COUNT SEED`. Prints a line of JSON: how many
// were taken and refused, the slowest one, the growth of the resident memory, and every error that is none of ours.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readHeader } from '../../dist/checkpoint/safetensors.js';
import { readIndex } from '../../dist/checkpoint/shards.js';
import { loadProcessor } from '../../dist/data/processor.js';
import { SluiceError } from '../../dist/errors.js';
import { decodeAudioConfig } from '../../dist/models/gemma3n/audio-config.js';
import { decodeConfig } from '../../dist/models/gemma3n/config.js';
import { planTower } from '../../dist/models/gemma3n/mobilenet-plan.js';
import { decodeVisionConfig } from '../../dist/models/gemma3n/vision-config.js';
import { damageBytes, damageJson, random } from './mutate.mjs';

console.warn = () => undefined; // the tokenizer library remarks on what it does not know

const fixture = (path) => readFileSync(new URL(`../../fixtures/${path}`, import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'sluice-fuzz-'));
const draw = random(Number(process.argv[4]));
const pick = (list) => list[Math.floor(draw() * list.length)];

/** Half of the damage is to bytes, half to what they say. */
function damaged(bytes) {
  if (draw() < 0.5) return damageBytes(draw, bytes);
  return Buffer.from(JSON.stringify(damageJson(draw, JSON.parse(bytes.toString()))) ?? '');
}

function written(name, bytes) {
  writeFileSync(join(folder, name), bytes);
  return join(folder, name);
}

const weights = fixture('reference/checkpoint/kinds.safetensors');
const configs = [
  'reference/text-sharing/config.json',
  'reference/multimodal-wide/config.json',
  'tiny-gemma3n/config.json',
];
const index = Buffer.from(
  JSON.stringify({
    metadata: { total_size: 12 },
    weight_map: Object.fromEntries(
      Array.from({ length: 40 }, (_, i) => [`layer.${i}`, `model-0000${i % 3}-of-00003.safetensors`]),
    ),
  }),
);
const processorFiles = [
  'tokenizer.json',
  'tokenizer_config.json',
  'preprocessor_config.json',
  'processor_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
];
const sound = new Map(processorFiles.map((name) => [name, fixture(`tiny-gemma3n/${name}`)]));

const readers = {
  header() {
    const json = weights.subarray(8, 8 + Number(weights.readBigUInt64LE(0)));
    const data = weights.subarray(8 + json.length);
    if (draw() < 0.4) return readHeader(written('w.safetensors', damageBytes(draw, weights)));
    const other = damaged(json);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(other.length));
    return readHeader(written('w.safetensors', Buffer.concat([length, other, data])));
  },
  config() {
    let json;
    try {
      json = JSON.parse(damaged(fixture(pick(configs))).toString());
    } catch (error) {
      if (error instanceof SyntaxError) return;
      throw error;
    }
    const config = decodeConfig(json);
    if (config.vision) planTower(decodeVisionConfig(config.vision).tower);
    if (config.audio) decodeAudioConfig(config.audio);
  },
  index: () => readIndex(written('model.safetensors.index.json', damaged(index))),
  async processor() {
    const name = draw() < 0.6 ? 'tokenizer.json' : pick(processorFiles);
    for (const [file, bytes] of sound) written(file, bytes);
    const bytes = sound.get(name);
    written(name, name.endsWith('.jinja') ? damageBytes(draw, bytes) : damaged(bytes));
    const processor = await loadProcessor(folder);
    const content = 'Ein  text\n with <end_of_turn> 😀 and 123';
    const { inputIds } = await processor.encode([{ role: 'user', content }], { addGenerationPrompt: true });
    processor.decode(inputIds);
  },
};

const [name, count] = [process.argv[2], Number(process.argv[3])];
const outcome = { taken: 0, refused: 0, slowestMs: 0, strange: [] };
for (let i = -20; i < count; i++) {
  if (i === 0) outcome.before = process.resourceUsage().maxRSS;
  const began = performance.now();
  try {
    await readers[name]();
    outcome.taken++;
  } catch (error) {
    outcome.refused++;
    if (!(error instanceof SluiceError)) outcome.strange.push(`${i}: ${String(error.stack).slice(0, 600)}`);
  }
  outcome.slowestMs = Math.max(outcome.slowestMs, performance.now() - began);
}
rmSync(folder, { recursive: true, force: true });
const grownMb = (process.resourceUsage().maxRSS - outcome.before) / 1024;
console.log(
  JSON.stringify({
    ...outcome,
    grownMb,
    strange: outcome.strange.slice(0, 20),
    numStrange: outcome.strange.length,
  }),
);
