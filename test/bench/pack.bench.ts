// Real tokens a second, forward, loss and backward, of packed rows beside padded batches of the same samples in the same
// order and with the same budget of positions; the two take turns.

import { cpus } from 'node:os';
import { afterAll, it } from 'vitest';
import { batch, type BatchContext } from '../../src/data/batch.js';
import { pack } from '../../src/data/pack.js';
import { random } from '../../src/data/random.js';
import type { Batch, Example } from '../../src/data/types.js';
import { toTensors } from '../../src/device/batch-tensors.js';
import { runFlow, type Source, type Stage } from '../../src/flow/index.js';
import { fromConfig } from '../../src/models/gemma3n/index.js';
import { make, part, type Part } from '../../src/parts.js';
import { decode } from '../../src/schema.js';
import { scope, setNumThreads } from '../../src/tensor/index.js';
import { type BenchRow, median, printTable } from './table.js';

const THREADS = Number(process.env['BENCH_THREADS'] ?? cpus().length);
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 3);
const TOKENS = 2048;

const CONFIG = {
  model_type: 'gemma3n_text',
  vocab_size: 4096,
  vocab_size_per_layer_input: 4096,
  hidden_size: 256,
  intermediate_size: 1024,
  num_hidden_layers: 7,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  head_dim: 64,
  sliding_window: 256,
  hidden_size_per_layer_input: 32,
  num_kv_shared_layers: 2,
  laurel_rank: 16,
  activation_sparsity_pattern: [0.95, 0.95, 0, 0, 0, 0, 0],
};

/** Lengths of samples, by a number in [0, 1). */
const KINDS: Readonly<Record<string, (share: number) => number>> = {
  'a picture and a question: 275 to 300 tokens': (share) => 275 + Math.floor(26 * share),
  'short turns: 20 to 200 tokens': (share) => 20 + Math.floor(181 * share),
  'texts of 10 to 1,000 tokens, evenly over their logarithm': (share) => Math.floor(10 * 100 ** share),
};

const rows: BenchRow[] = [];
afterAll(() =>
  printTable(
    `Packed rows, real tokens a second, ${TOKENS} positions a batch, ${THREADS} threads (reference: padded batches)`,
    rows,
  ),
);

it.each(
  Object.keys(KINDS).flatMap((kind) =>
    (['bfloat16', 'float32'] as const).map((dtype) => [kind, dtype] as const),
  ),
)(
  '%s, %s',
  async (kind, dtype) => {
    setNumThreads(THREADS);
    const model = fromConfig(CONFIG, { seed: 1, dtype }).train();
    const examples = examplesOf(KINDS[kind]!);
    const packed = await batchesOf(pack({ tokens: TOKENS }), examples);
    const padded = await batchesOf(batch({ tokens: TOKENS }), examples);
    const measure = (batches: readonly Batch[]): number => {
      const begun = performance.now();
      for (const each of batches) {
        scope(() => {
          for (const [, parameter] of model.namedParameters()) parameter.grad = null;
          model.lossSum(toTensors(each, 'cpu')).loss.backward();
        });
      }
      return performance.now() - begun;
    };
    const [ours, theirs]: [number[], number[]] = [[], []];
    measure(packed.slice(0, 1));
    measure(padded.slice(0, 1));
    for (let round = 0; round < ROUNDS; round++) {
      ours.push(measure(packed));
      theirs.push(measure(padded));
    }
    const numTokens = examples.reduce((sum, { inputIds }) => sum + inputIds.length, 0);
    const speed = (ms: readonly number[]): string =>
      `${Math.round((1000 * numTokens) / median(ms))} tokens/s`;
    rows.push({
      name: `${kind}, ${dtype}; padding ${paddingOf(packed)}, padded ${paddingOf(padded)}`,
      ours: speed(ours),
      reference: speed(theirs),
      ratio: median(theirs.map((ms, i) => ms / ours[i]!)),
    });
  },
  600_000,
);

function paddingOf(batches: readonly Batch[]): string {
  const places = batches.reduce((sum, { inputIds }) => sum + inputIds.data.length, 0);
  const tokens = batches.reduce((sum, { numTokens }) => sum + numTokens, 0);
  return `${(100 * (1 - tokens / places)).toFixed(0)} %`;
}

/** Of about two budgets' tokens, a quarter of them labelled. */
function examplesOf(lengthOf: (share: number) => number): Example[] {
  const draw = random(11);
  const examples: Example[] = [];
  for (let total = 0; total < 2 * TOKENS;) {
    const length = lengthOf(draw.below(2 ** 20) / 2 ** 20);
    const inputIds = Int32Array.from({ length }, () => 3 + draw.below(4000));
    examples.push({ inputIds, labels: inputIds.map((id, i) => (4 * i < 3 * length ? -100 : id)) });
    total += length;
  }
  return examples;
}

async function batchesOf(declared: Part<'stage'>, examples: readonly Example[]): Promise<Batch[]> {
  const context: BatchContext = { processor: { padTokenId: 0 }, purpose: 'train' };
  const stage = make(
    decode(part('stage'), declared, 'flow') as Part<'stage', BatchContext, Stage<Example, Batch>>,
    context,
  );
  const source: Source<Example> = {
    name: 'examples',
    open: async function* () {
      for (const [row, value] of examples.entries()) {
        yield { value, bytes: 1, origin: { file: 'examples', rowGroup: 0, row } };
      }
    },
  };
  const batches: Batch[] = [];
  const consume = (value: Batch): void => void batches.push(value);
  await runFlow({ source, stages: [stage], poolBytes: 2 ** 26, consume });
  return batches;
}
