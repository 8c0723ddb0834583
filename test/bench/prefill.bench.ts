// Reading a prompt of 2,048 tokens up to the logits of its next token: the upper layers for the last token alone, beside
// every layer for every token, and beside transformers' (which keeps the last token's logits alone, after all layers).
// All take turns; ratios are of each turn. What the key and value cache and the reading itself take is told too.

import { afterAll, it } from 'vitest';
import { KvCache } from '../../src/models/gemma3n/kv-cache.js';
import { noGrad, scope, setNumThreads, tensorMemory } from '../../src/tensor/index.js';
import { type BenchDType, ROUNDS, THREADS, benchModel, randomPrompt, startReference } from './generation.js';
import { type BenchRow, median, printTable } from './table.js';

const PROMPT = 2048;
/** transformers takes no further turn beyond: its products of bfloat16 take minutes on a processor without instructions
 *  for them. */
const MOST_REFERENCE_MS = 120_000;

const rows: BenchRow[] = [];
const memory: string[] = [];
afterAll(() => {
  printTable(`Prefill of ${PROMPT} tokens, ${THREADS} threads (reference: as named)`, rows);
  console.log(memory.join('\n'));
});

it.each(['bfloat16', 'float32'] as const)('prefill in %s', async (dtype) => {
  setNumThreads(THREADS);
  const read = ourReader(dtype);
  const reference = await startReference({ dtype, batch: 1, prompt: PROMPT, tokens: 0 });
  const lean: number[] = [];
  const full: number[] = [];
  const theirs: number[] = [];
  let spent = 0;
  try {
    for (let round = -1; round < ROUNDS; round++) {
      const leanMs = read(true);
      const fullMs = read(false);
      const isTheirTurn = spent < MOST_REFERENCE_MS;
      const referenceMs = isTheirTurn ? (await reference?.round())?.prefillMs : undefined;
      spent += referenceMs ?? 0;
      if (round < 0) continue;
      lean.push(leanMs);
      full.push(fullMs);
      if (referenceMs !== undefined) theirs.push(referenceMs);
    }
  } finally {
    await reference?.end();
  }
  const row = (name: string, others: readonly number[]): BenchRow => ({
    name: `${dtype}, ${name}`,
    ours: told(median(lean)),
    ...(others.length > 0 && {
      reference: told(median(others)),
      ratio: median(others.map((ms, i) => ms / lean[i]!)),
    }),
  });
  rows.push(row('beside our full prefill', full), row('beside transformers', theirs));
});

const told = (ms: number): string => `${Math.round((PROMPT * 1000) / ms)} tokens/s (${Math.round(ms)} ms)`;

function ourReader(dtype: BenchDType): (lastOnly: boolean) => number {
  const model = benchModel(dtype);
  return (lastOnly) =>
    noGrad(() =>
      scope(() => {
        const inputIds = randomPrompt(1, PROMPT);
        using cache = new KvCache(model.config.text, PROMPT);
        const { used } = tensorMemory({ restart: true });
        const begun = performance.now();
        const hidden = model.hiddenStates({ inputIds }, cache, { lastOnly });
        model
          .logits(hidden.select(1, hidden.shape[1]! - 1))
          .argmax(-1)
          .item();
        const ms = performance.now() - begun;
        const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
        memory[2 * Number(dtype === 'float32') + Number(lastOnly)] =
          `${dtype}, ${lastOnly ? 'last token alone' : 'full'}: cache ${megabytes(cache.bytes)} MB, at most ` +
          `${megabytes(tensorMemory().most - used)} MB while reading`;
        return ms;
      }),
    );
}
