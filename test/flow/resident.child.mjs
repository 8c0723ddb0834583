// Measures what a flow keeps in memory while its consumer is far slower than its source; prints JSON.
// Arguments, as JSON: { file?, options?, poolBytes, count, slower }: a Parquet file and its options, or made up rows; the pool;
// values to consume; how many times slower the consumer is than the source (at most 50 ms a value).
//
// held: memory outside of the heap, all array buffers among it (process.memoryUsage().external), after a full collection,
//   beyond what there was when the flow began. Nothing but the flow's data lives there, so it is exact.
// resident: what the operating system has given the process (rss) in the same moment, beyond the same. With it come pages
//   of the heap, and such as the allocator keeps for later.

import { setTimeout as delay } from 'node:timers/promises';
import { parquet } from '../../dist/data/parquet.js';
import { runFlow } from '../../dist/flow/index.js';

const { file, options, poolBytes, count, slower } = JSON.parse(process.argv[2]);
const ITEM_BYTES = 1_000_000;

/** Real bytes, each page of them touched. */
async function* made() {
  for (let row = 0; ; row++) {
    const value = new Uint8Array(ITEM_BYTES).fill(row);
    yield { value, bytes: ITEM_BYTES, origin: { file: 'made', rowGroup: 0, row } };
  }
}
const source = file
  ? parquet(file, { ...options, epochs: Infinity })
  : { name: 'made', maxItemBytes: ITEM_BYTES, open: made };
const { heldBytes = 0 } = (await source.plan?.()) ?? {};

/** Opens the source and takes some items: what is compiled and loaded once is there then. @returns milliseconds an item */
async function sourceTime(items) {
  const begun = performance.now();
  let taken = 0;
  for await (const _ of source.open(new AbortController().signal)) if (++taken === items) break;
  return (performance.now() - begun) / items;
}
await sourceTime(60);
const consumeMs = Math.min(50, slower * (await sourceTime(60)));

globalThis.gc();
globalThis.gc();
const before = process.memoryUsage();
const held = [];
const resident = [];
const { peakBytes, ledger } = await runFlow({
  source,
  stages: [],
  poolBytes,
  consume: async (_value, { index, stop }) => {
    if (index + 1 >= count) stop();
    await delay(consumeMs);
    globalThis.gc();
    const { external, rss } = process.memoryUsage();
    held.push(external - before.external);
    resident.push(rss - before.rss);
  },
});
const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
const most = { held: Math.max(...held), resident: Math.max(...resident) };
const usual = { held: median(held), resident: median(resident) };
console.log(JSON.stringify({ most, usual, heldBytes, peakBytes, consumed: ledger.trained, consumeMs }));
