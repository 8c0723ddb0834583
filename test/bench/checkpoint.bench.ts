// What a checkpoint costs training: how long a step is held back, against copying the same bytes once; how long steps
// take while one is written, against steps alone; and how fast it is written, against a copy of the same files.

import {
  closeSync,
  copyFileSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, it } from 'vitest';
import { DeviceThread } from '../../src/device/thread.js';
import type { CheckpointWriterApi } from '../../src/train/checkpoint-worker.js';
import type { DeviceApi } from '../../src/train/worker.js';
import { smallConfig } from '../train/job.js';
import { learnerSpec } from '../train/learner-spec.js';
import { median, printTable } from './table.js';

/** 22 million parameters: 266 MB of weights and optimizer. Steps are short beside a write. */
const TEXT = { hidden_size: 512, intermediate_size: 2048, vocab_size: 16_384 };
const ROUNDS = 4;

const folders: string[] = [];
const newFolder = () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
  folders.push(folder);
  return folder;
};
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

const entry = (name: string) => new URL(`../../dist/train/${name}.js`, import.meta.url);

function modelFolder(): string {
  const folder = newFolder();
  const { text_config, vision_config: _vision, ...rest } = smallConfig() as Record<string, object>;
  const text = { ...text_config, ...TEXT };
  writeFileSync(
    join(folder, 'config.json'),
    JSON.stringify({ ...rest, ...text, model_type: 'gemma3n_text' }),
  );
  return folder;
}

const batch = () => {
  const shape = [1, 16];
  const ids = Int32Array.from({ length: 16 }, (_, i) => 10 + (i % 300));
  return {
    inputIds: { data: ids, shape },
    attentionMask: { data: new Uint8Array(16).fill(1), shape },
    labels: { data: ids.slice(), shape },
    numTokens: 16,
    numLabels: 15,
    numSamples: 1,
  };
};

it('what a checkpoint costs training', { timeout: 600_000 }, async () => {
  const spec = learnerSpec({ path: modelFolder(), lr: 1e-4, maxSteps: 1000 });
  const device = new DeviceThread<DeviceApi>(entry('worker'), spec);
  const writer = new DeviceThread<CheckpointWriterApi>(entry('checkpoint-worker'));
  const { numParameters } = await device.call('open', []);
  const step = async () => {
    const begun = performance.now();
    await device.call('accumulate', [batch(), ['row']]);
    await device.call('update', [['row']]);
    return performance.now() - begun;
  };
  for (let warm = 0; warm < 3; warm++) await step();
  const alone: number[] = [];
  const beside: number[] = [];
  const held: number[] = [];
  const copied: { readonly first: number; readonly again: number }[] = [];
  const written: number[] = [];
  const cp: number[] = [];
  let bytes = 0;
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < 5; i++) alone.push(await step());
    const run = newFolder();
    const begun = performance.now();
    const snapshot = await device.call('snapshot', [{ stream: undefined, plan: undefined }, undefined]);
    held.push(performance.now() - begun);
    bytes = snapshot.bytes;
    let isOpen = true;
    const writing = writer.call('write', [run, snapshot, {}]).finally(() => (isOpen = false));
    while (isOpen) beside.push(await step());
    if (beside.length > 1) beside.pop(); // over before it ended
    const { path, writeMs } = await writing;
    written.push(writeMs);
    cp.push(copyFiles(path, newFolder()));
    copied.push(copyBytes(bytes));
    rmSync(run, { recursive: true });
  }
  await Promise.all([device.terminate(), writer.terminate()]);
  const ms = (value: number) => `${value.toFixed(0)} ms`;
  const row = (name: string, ours: number, reference: number) => ({
    name,
    ours: ms(ours),
    reference: ms(reference),
    ratio: reference / ours,
  });
  printTable(
    `Checkpoints: ${(numParameters / 1e6).toFixed(0)} M parameters, ${(bytes / 1e6).toFixed(0)} MB copied`,
    [
      row(
        'a step is held back, at the fastest of three; reference: Buffer.set of the same bytes',
        Math.min(...held.slice(1)),
        Math.min(...copied.map(({ again }) => again)),
      ),
      row(
        'the same at the first checkpoint; reference: into new memory',
        held[0]!,
        Math.min(...copied.map(({ first }) => first)),
      ),
      row('a step while one is written; reference: a step alone', median(beside), median(alone)),
      row(
        'written and synced beside training; reference: copied and synced, alone',
        median(written),
        median(cp),
      ),
    ],
  );
});

/** Into new memory, as the first checkpoint's copy is, and into that again, as every other's is. */
function copyBytes(bytes: number): { readonly first: number; readonly again: number } {
  const source = new Uint8Array(bytes).fill(1);
  const timed = (target: () => Uint8Array) => {
    const begun = performance.now();
    const array = target();
    array.set(source);
    return { array, ms: performance.now() - begun };
  };
  const { array, ms: first } = timed(() => new Uint8Array(bytes));
  return { first, again: timed(() => array).ms };
}

/** Not by a program: starting one makes this process's pages copy-on-write, and the next snapshot pays for that. */
function copyFiles(from: string, to: string): number {
  const files = readdirSync(from).filter((name) => statSync(join(from, name)).isFile());
  const begun = performance.now();
  for (const file of files) {
    copyFileSync(join(from, file), join(to, file));
    const written = openSync(join(to, file), 'r+');
    fsyncSync(written);
    closeSync(written);
  }
  return performance.now() - begun;
}
