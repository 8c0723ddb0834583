// Tokens a second of greedy decoding after a short prompt, `generate` as users call it, beside transformers' model with
// its own cache: the two take turns, and the ratio is of each pair.

import { afterAll, it } from 'vitest';
import { generate } from '../../src/generate/index.js';
import { setNumThreads } from '../../src/tensor/index.js';
import { type BenchDType, ROUNDS, THREADS, benchModel, randomPrompt, startReference } from './generation.js';
import { type BenchRow, median, printTable } from './table.js';

const PROMPT = 64;
const TOKENS = 64;

const rows: BenchRow[] = [];
afterAll(() => printTable(`Decoding, ${THREADS} threads (reference: transformers, DynamicCache)`, rows));

const cases = (['bfloat16', 'float32'] as const).flatMap((dtype) =>
  [1, 4].map((batch) => ({ dtype, batch })),
);

it.each(cases)('decode in $dtype, batch $batch', async ({ dtype, batch }) => {
  setNumThreads(THREADS);
  const decode = ourDecode(dtype, batch);
  const reference = await startReference({ dtype, batch, prompt: PROMPT, tokens: TOKENS });
  const ours: number[] = [];
  const theirs: number[] = [];
  try {
    for (let round = -1; round < ROUNDS; round++) {
      const ms = await decode();
      const referenceMs = (await reference?.round())?.decodeMs;
      if (round < 0) continue; // neither side has found its memory
      ours.push(ms);
      if (referenceMs !== undefined) theirs.push(referenceMs);
    }
  } finally {
    await reference?.end();
  }
  const perSecond = (ms: number): string =>
    `${((batch * TOKENS * 1000) / ms).toFixed(1)} tokens/s (${(ms / TOKENS).toFixed(1)} ms a step)`;
  rows.push({
    name: `${dtype}, batch ${batch}`,
    ours: perSecond(median(ours)),
    ...(reference && {
      reference: perSecond(median(theirs)),
      ratio: median(theirs.map((ms, i) => ms / ours[i]!)),
    }),
  });
});

/** Milliseconds from the first new token to the last. */
function ourDecode(dtype: BenchDType, batch: number): () => Promise<number> {
  const model = benchModel(dtype);
  return async () => {
    using inputIds = randomPrompt(batch, PROMPT);
    const heard: number[] = [];
    await generate(
      model,
      { inputIds },
      {
        maxNewTokens: TOKENS + 1,
        eosTokenIds: [],
        onToken: (_, row) => row === 0 && heard.push(performance.now()),
      },
    );
    return heard.at(-1)! - heard[0]!;
  };
}
