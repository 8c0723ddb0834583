// What the benchmarks of generation share: a model with the layers of Gemma 3n E2B, and transformers beside it in a
// process of its own, which takes its turns when asked.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Gemma3n, fromConfig } from '../../src/models/gemma3n/index.js';
import { type Tensor, tensor } from '../../src/tensor/index.js';
import { pythonWith } from './table.js';

export const THREADS = Number(process.env['BENCH_THREADS'] ?? cpus().length);
export const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);

export type BenchDType = 'bfloat16' | 'float32';

/** As E2B: 30 layers, every fifth full, the last 10 sharing keys and values, the first 10 sparse, a window of 512. Its
 *  sizes are a quarter of E2B's, with 32,768 words. 199 million parameters. */
const CONFIG = {
  vocab_size: 32768,
  vocab_size_per_layer_input: 32768,
  hidden_size: 512,
  intermediate_size: 2048,
  num_hidden_layers: 30,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  head_dim: 64,
  sliding_window: 512,
  hidden_size_per_layer_input: 64,
  num_kv_shared_layers: 10,
  laurel_rank: 16,
  activation_sparsity_pattern: Array.from({ length: 30 }, (_, layer) => (layer < 10 ? 0.95 : 0)),
};

export function benchModel(dtype: BenchDType): Gemma3n {
  const config = { model_type: 'gemma3n_text', architectures: ['Gemma3nForCausalLM'], ...CONFIG };
  return fromConfig(config, { seed: 0, dtype }).eval();
}

/** int64 [batch, length] */
export function randomPrompt(batch: number, length: number): Tensor {
  const ids = BigInt64Array.from({ length: batch * length }, () =>
    BigInt(3 + Math.floor(Math.random() * 29_997)),
  );
  return tensor(ids, [batch, length]);
}

export interface Round {
  /** Until the first new token. */
  readonly prefillMs: number;
  /** Of all further tokens. */
  readonly decodeMs: number;
}

/** transformers with the same configuration; undefined where it is not installed. */
export async function startReference(job: {
  readonly dtype: BenchDType;
  readonly batch: number;
  readonly prompt: number;
  readonly tokens: number;
}): Promise<{ round(): Promise<Round>; end(): Promise<void> } | undefined> {
  const python = pythonWith('torch', 'transformers');
  if (!python) return undefined;
  const script = fileURLToPath(new URL('./decode.py', import.meta.url));
  const child = spawn(python, [script, JSON.stringify({ ...job, config: CONFIG, threads: THREADS })], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(child, 'close');
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async (): Promise<Round> => {
    const line = await lines.next();
    if (line.done) throw new Error('decode.py ended early');
    return JSON.parse(line.value) as Round;
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
