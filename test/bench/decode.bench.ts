// Reading a prompt and decoding on a model of E2B's layer layout (30 layers, the last 10 sharing), beside transformers in
// turn; and reading the upper layers for the last position alone against reading them whole.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, it } from 'vitest';
import { generate } from '../../src/generate/index.js';
import { KvCache } from '../../src/models/gemma3n/kv-cache.js';
import { fromConfig, type Gemma3n } from '../../src/models/gemma3n/index.js';
import { noGrad, scope, setNumThreads, tensor, type Tensor } from '../../src/tensor/index.js';
import { type BenchRow, median, printTable, pythonWith } from './table.js';

const THREADS = Number(process.env['BENCH_THREADS'] ?? cpus().length);
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);
const CONFIG = {
  vocab_size: 32_768,
  vocab_size_per_layer_input: 32_768,
  hidden_size: 512,
  intermediate_size: 2048,
  num_hidden_layers: 30,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  head_dim: 64,
  sliding_window: 512,
  hidden_size_per_layer_input: 64,
  num_kv_shared_layers: 10,
  laurel_rank: 64,
  activation_sparsity_pattern: [...Array<number>(10).fill(0.95), ...Array<number>(20).fill(0)],
};

interface Times {
  readonly prefillMs: number;
  readonly decodeMs: number;
}

const rows: BenchRow[] = [];
afterAll(() => printTable('Prefill and decode', rows));

function prompts(batch: number, length: number): Tensor {
  const ids = BigInt64Array.from({ length: batch * length }, (_, i) => BigInt(3 + ((i * 7919) % 30_000)));
  return tensor(ids, [batch, length]);
}

async function ours(model: Gemma3n, inputIds: Tensor, tokens: number): Promise<Times> {
  const begun = performance.now();
  let read = 0;
  await generate(
    model,
    { inputIds },
    { maxNewTokens: tokens + 1, eosTokenIds: [], onToken: () => (read ||= performance.now()) },
  );
  return { prefillMs: read - begun, decodeMs: performance.now() - read };
}

async function startReference(python: string, job: object) {
  const script = fileURLToPath(new URL('./decode.py', import.meta.url));
  const child = spawn(python, [script, JSON.stringify(job)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async (): Promise<Times> => {
    const line = await lines.next();
    if (line.done) throw new Error('decode.py ended early');
    return JSON.parse(line.value) as Times;
  };
  await answer(); // the model is there
  return {
    round: () => {
      child.stdin.write('\n');
      return answer();
    },
    end: async () => {
      child.stdin.end();
      await ended;
    },
  };
}

it.each([
  ['float32', 1],
  ['float32', 4],
  ['bfloat16', 1],
  ['bfloat16', 4],
] as const)('decode in %s, %i prompts', async (dtype, batch) => {
  setNumThreads(THREADS);
  const tokens = 32;
  const prompt = 64;
  const model = fromConfig({ model_type: 'gemma3n_text', ...CONFIG }, { seed: 0, dtype }).eval();
  const job = { config: CONFIG, dtype, batch, prompt, tokens, threads: THREADS };
  const python = pythonWith('torch', 'transformers');
  const reference = python ? await startReference(python, job) : undefined;
  const mine: number[] = [];
  const theirs: number[] = [];
  for (let round = -1; round < ROUNDS; round++) {
    const { decodeMs } = await ours(model, prompts(batch, prompt), tokens);
    const other = await reference?.round();
    if (round < 0) continue;
    mine.push(decodeMs);
    if (other) theirs.push(other.decodeMs);
  }
  await reference?.end();
  const rate = (ms: number): string => `${((batch * tokens * 1000) / ms).toFixed(1)} tokens/s`;
  rows.push({
    name: `decode, ${dtype}, batch ${batch}`,
    ours: rate(median(mine)),
    ...(theirs.length > 0 && {
      reference: rate(median(theirs)),
      ratio: median(mine.map((ms, i) => theirs[i]! / ms)),
    }),
  });
  model.dispose();
});

it.each(['float32', 'bfloat16'] as const)('prefill of 2,048 tokens in %s', (dtype) => {
  setNumThreads(THREADS);
  const model = fromConfig({ model_type: 'gemma3n_text', ...CONFIG }, { seed: 0, dtype }).eval();
  const read = (lastOnly: boolean): number => {
    using cache = new KvCache(model.config.text, 2048);
    const begun = performance.now();
    noGrad(() =>
      scope(() => model.hiddenStates({ inputIds: prompts(1, 2048) }, cache, { lastOnly }).toTypedArray()),
    );
    return performance.now() - begun;
  };
  read(true);
  const pairs = Array.from(
    { length: Math.max(2, Math.ceil(ROUNDS / 2)) },
    () => [read(false), read(true)] as const,
  );
  rows.push({
    name: `prefill, 2,048 tokens, ${dtype}: upper layers for the last position, beside whole`,
    ours: `${Math.round(median(pairs.map(([, last]) => last)))} ms`,
    reference: `${Math.round(median(pairs.map(([whole]) => whole)))} ms, ours whole`,
    ratio: median(pairs.map(([whole, last]) => whole / last)),
  });
  model.dispose();
});
