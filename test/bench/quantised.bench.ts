// LoRA over weights in NF4 and int8 beside LoRA over bfloat16: bytes of weights, peak memory and time of a step; and one
// product beside the dense one, and beside bitsandbytes on a CPU where Python has it. Steps take turns; ratios are of pairs.

import { cpus } from 'node:os';
import { afterAll, describe, it } from 'vitest';
import {
  type Gemma3n,
  type QuantiseOptions,
  applyAdapter,
  fromConfig,
  lora,
  quantise,
} from '../../src/index.js';
import { Linear, QuantisedWeight, type WeightFormat, parameter } from '../../src/nn/index.js';
import { adamw } from '../../src/optim/index.js';
import {
  type Tensor,
  noGrad,
  randn,
  scope,
  setNumThreads,
  tensor,
  tensorMemory,
} from '../../src/tensor/index.js';
import { type BenchRow, median, printTable, pythonWith, runPython } from './table.js';

const THREADS = Number(process.env['BENCH_THREADS'] ?? cpus().length);
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);
const FORMATS = ['nf4', 'int8'] as const satisfies readonly WeightFormat[];

const [S, F] = ['sliding_attention', 'full_attention'];
/** E2B's kind of layer at half its widths; the vocabulary small beside them, as in the whole model. */
const CONFIG = {
  model_type: 'gemma3n_text',
  vocab_size: 16384,
  vocab_size_per_layer_input: 16384,
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 6,
  layer_types: [S, S, F, S, S, F],
  num_attention_heads: 8,
  num_key_value_heads: 2,
  head_dim: 128,
  sliding_window: 256,
  hidden_size_per_layer_input: 128,
  num_kv_shared_layers: 3,
  laurel_rank: 32,
  activation_sparsity_pattern: [0.95, 0.95, 0, 0, 0, 0],
};
const [BATCH, LENGTH] = [1, 512];

const steps: BenchRow[] = [];
const products: BenchRow[] = [];
afterAll(() => {
  printTable(`LoRA over quantised weights, ${THREADS} threads (reference: LoRA over bfloat16)`, steps);
  printTable(`One product of bfloat16, ${THREADS} threads (reference: the dense one)`, products);
});

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
const ms = (time: number): string => `${time.toFixed(1)} ms`;

interface Trained {
  readonly weights: number;
  readonly step: () => { ms: number; peak: number };
  readonly end: () => void;
}

function trained(options?: QuantiseOptions): Trained {
  const before = tensorMemory({ restart: true }).used;
  const model: Gemma3n = fromConfig(CONFIG, { seed: 0, dtype: 'bfloat16' });
  if (options) quantise(model, options);
  const weights = tensorMemory().used - before;
  applyAdapter(model.train(), lora({ rank: 16, alpha: 32 }));
  const learning = [...model.namedParameters()].flatMap(([, one]) => (one.requiresGrad ? [one] : []));
  const optimizer = adamw({ lr: 1e-4 })(learning);
  const ids = tensor(
    BigInt64Array.from({ length: BATCH * LENGTH }, (_, i) => BigInt(3 + ((i * 7919) % 16000))),
    [BATCH, LENGTH],
  );
  const labels = tensor(
    BigInt64Array.from({ length: BATCH * LENGTH }, (_, i) => (i % LENGTH < (3 * LENGTH) / 4 ? -100n : 5n)),
    [BATCH, LENGTH],
  );
  return {
    weights,
    step: () => {
      const { used } = tensorMemory({ restart: true });
      const begun = performance.now();
      scope(() => model.lossSum({ inputIds: ids, labels }).loss.backward());
      optimizer.step();
      optimizer.zeroGrad();
      return { ms: performance.now() - begun, peak: weights + tensorMemory().most - used };
    },
    end: () => {
      optimizer.dispose();
      model.dispose();
      for (const one of [ids, labels]) one.dispose();
    },
  };
}

describe('a step of LoRA', () => {
  it.each<[string, QuantiseOptions]>([
    ['NF4', 'nf4'],
    ['NF4, embeddings and head too', { format: 'nf4', embeddings: true }],
    ['int8', 'int8'],
  ])('over weights in %s', (name, options) => {
    setNumThreads(THREADS);
    const [ours, plain] = [trained(options), trained()];
    const pairs: { ours: ReturnType<Trained['step']>; plain: ReturnType<Trained['step']> }[] = [];
    for (let round = -2; round < ROUNDS; round++) {
      const pair = { ours: ours.step(), plain: plain.step() };
      if (round >= 0) pairs.push(pair);
    }
    const of = (pick: (pair: (typeof pairs)[number]) => number): number => median(pairs.map(pick));
    const [mine, others] = [of((pair) => pair.ours.peak), of((pair) => pair.plain.peak)];
    const row = (what: string, a: string, b: string, ratio: number): void =>
      void steps.push({ name: `${name}: ${what}`, ours: a, reference: b, ratio });
    row('bytes of weights', megabytes(ours.weights), megabytes(plain.weights), ours.weights / plain.weights);
    row('peak of a step, weights included', megabytes(mine), megabytes(others), mine / others);
    row(
      'time of a step',
      ms(of((pair) => pair.ours.ms)),
      ms(of((pair) => pair.plain.ms)),
      of((pair) => pair.ours.ms / pair.plain.ms),
    );
    for (const one of [ours, plain]) one.end();
  });
});

describe('one product', () => {
  const [ROWS, SIZE] = [8192, 2048];

  it.each([
    [1, 'forward'],
    [512, 'forward'],
    [512, 'forward and backward'],
  ] as const)('of %i tokens, %s', (tokens, what) => {
    setNumThreads(THREADS);
    const dense = new Linear(SIZE, ROWS);
    noGrad(() => scope(() => dense.weight.copy_(randn([ROWS, SIZE]).mul(0.02))));
    const wide = dense.weight.to('bfloat16');
    const facts = { shape: wide.shape, dtype: 'bfloat16', device: 'cpu' } as const;
    dense.weight.dispose();
    dense.weight = parameter(wide.detach(), { requiresGrad: false });
    const layers = FORMATS.map((format) => {
      const made = new Linear(SIZE, ROWS);
      const quantisation = { format, blockSize: 64, doubleQuantise: true } as const;
      made.useQuantised(
        QuantisedWeight.of(facts, quantisation, (first, count) => wide.detach().narrow(0, first, count)),
      );
      return made;
    });
    const run = (layer: Linear): number => timed(layer, tokens, what !== 'forward');
    const times = [dense, ...layers].map((): number[] => []);
    const count = tokens === 1 ? 5 * ROUNDS : ROUNDS;
    for (let round = -2; round < count; round++) {
      for (const [i, layer] of [dense, ...layers].entries()) {
        const time = run(layer);
        if (round >= 0) times[i]!.push(time);
      }
    }
    const python = pythonWith('torch', 'bitsandbytes');
    const reference = python
      ? runPython<Record<WeightFormat, number>>(python, './quantised.py', [
          JSON.stringify({
            rows: ROWS,
            size: SIZE,
            tokens,
            backward: what !== 'forward',
            threads: THREADS,
            rounds: count,
          }),
        ])
      : undefined;
    for (const [i, format] of FORMATS.entries()) {
      const ratio = median(times[0]!.map((one, round) => times[i + 1]![round]! / one));
      const theirs = reference ? `; bitsandbytes ${ms(reference[format])}` : '';
      products.push({
        name: `${format}, ${tokens} x ${SIZE} -> ${ROWS}, ${what}`,
        ours: ms(median(times[i + 1]!)),
        reference: `${ms(median(times[0]!))}${theirs}`,
        ratio,
      });
    }
    for (const one of [dense, ...layers]) one.dispose();
  });
});

function timed(layer: Linear, tokens: number, isBackward: boolean): number {
  return scope(() => {
    const x: Tensor = randn([tokens, layer.inFeatures]).to('bfloat16');
    x.requiresGrad = isBackward;
    const begun = performance.now();
    if (isBackward) layer.forward(x).sum().backward();
    else noGrad(() => layer.forward(x));
    return performance.now() - begun;
  });
}
