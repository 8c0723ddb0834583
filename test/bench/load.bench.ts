// Loading a checkpoint of some 400 MB, beside reading its file and beside transformers' from_pretrained: time, and the
// most memory. transformers reads weights of the file's dtype when they are first used: beside it both sum every weight.
// Each measurement is a process of its own, in turns.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { it } from 'vitest';
import { fromConfig, savePretrained } from '../../src/index.js';
import { type BenchRow, median, printTable, pythonWith, runPython } from './table.js';

const ROUNDS = 3;

const references: Readonly<Record<string, string>> = { read: 'reading the file', bfloat16: 'not mapped' };

interface Load {
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** The most that was resident, less what was before. */
  readonly peakBytes: number;
  /** Anonymous memory afterwards, less what was before: what the system cannot drop. */
  readonly anonymousBytes: number;
}

/** Half of it per-layer embeddings, as of the published models a third. */
const CONFIG = {
  model_type: 'gemma3n_text',
  vocab_size: 40_000,
  vocab_size_per_layer_input: 40_000,
  hidden_size: 768,
  hidden_size_per_layer_input: 128,
  num_hidden_layers: 16,
  intermediate_size: 1536,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  head_dim: 128,
  num_kv_shared_layers: 5,
  laurel_rank: 32,
  pad_token_id: 0,
  dtype: 'bfloat16',
};

it('loading a checkpoint', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
  const python = pythonWith('torch', 'transformers');
  try {
    const model = fromConfig(CONFIG, { seed: 1 });
    await savePretrained(model, folder);
    model.dispose();
    const fileBytes = statSync(join(folder, 'model.safetensors')).size;

    const ways = {
      read: () => ours('read', folder, 'bfloat16', 'device'),
      used: () => ours('load', folder, 'bfloat16', 'device', 'used'),
      bfloat16: () => ours('load', folder, 'bfloat16', 'device'),
      float32: () => ours('load', folder, 'float32', 'device', 'used'),
      mapped: () => ours('load', folder, 'bfloat16', 'mapped'),
      ...(python !== undefined && {
        reference: () => runPython<Load>(python, './load.py', [folder, 'bfloat16']),
        reference32: () => runPython<Load>(python, './load.py', [folder, 'float32']),
      }),
    } as Record<string, () => Load>;
    const taken: Record<string, Load[]> = {};
    ours('read', folder, 'bfloat16', 'device'); // the file is in the system's cache from here on
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, measure] of Object.entries(ways)) (taken[name] ??= []).push(measure());
    }
    printTable(`Loading ${megabytes(fileBytes)} of bfloat16, each in a new process`, rows(taken));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

function ours(how: 'read' | 'load', folder: string, dtype: string, embeddings: string, use = ''): Load {
  const script = fileURLToPath(new URL('./load-child.mjs', import.meta.url));
  const out = execFileSync(process.execPath, [script, how, folder, dtype, embeddings, use], {
    encoding: 'utf8',
  });
  return JSON.parse(out.trim().split('\n').at(-1)!) as Load;
}

function rows(taken: Record<string, Load[]>): BenchRow[] {
  const of = (name: string, what: keyof Load): number[] => (taken[name] ?? []).map((load) => load[what]);
  const beside = (
    name: string,
    [mine, theirs]: readonly [string, string],
    what: keyof Load,
    show: (value: number) => string,
  ): BenchRow => ({
    name,
    ours: show(median(of(mine, what))),
    ...(taken[theirs] && {
      reference: `${show(median(of(theirs, what)))} (${references[theirs] ?? 'transformers'})`,
      ratio: median(of(mine, what).map((value, round) => of(theirs, what)[round]! / value)),
    }),
  });
  const ms = (seconds: number): string => `${(seconds * 1000).toFixed(0)} ms`;
  return [
    beside('load, wall', ['bfloat16', 'read'], 'seconds', ms),
    beside('load, processor time', ['bfloat16', 'read'], 'cpuSeconds', ms),
    beside('load and sum, wall', ['used', 'reference'], 'seconds', ms),
    beside('load and sum, processor time', ['used', 'reference'], 'cpuSeconds', ms),
    beside('load and sum, most resident memory', ['used', 'reference'], 'peakBytes', megabytes),
    beside('as float32: load and sum, wall', ['float32', 'reference32'], 'seconds', ms),
    beside(
      'as float32: load and sum, most resident memory',
      ['float32', 'reference32'],
      'peakBytes',
      megabytes,
    ),
    beside('load with mapped embeddings, wall', ['mapped', 'bfloat16'], 'seconds', ms),
    beside(
      'load with mapped embeddings, anonymous memory',
      ['mapped', 'bfloat16'],
      'anonymousBytes',
      megabytes,
    ),
  ];
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB`;
}
