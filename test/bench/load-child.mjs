// One load, or one read of the file, in a process of its own, so that its memory is its own. Prints a line of JSON.
//   node load-child.mjs read|load FOLDER DTYPE EMBEDDINGS [used]     with 'used' every weight is summed

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fromPretrained, noGrad, scope, tensor } from '../../dist/index.js';

const [how, folder, dtype, embeddings, use] = process.argv.slice(2);
tensor([1]).dispose(); // the engine is there before the clock starts

/** Of /proc/self/status, in bytes. */
function memory(key) {
  return (
    Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
  );
}

const before = { anonymous: memory('RssAnon'), resident: memory('VmRSS') };
const usage = process.cpuUsage();
const begun = performance.now();
const kept =
  how === 'read'
    ? readFileSync(join(folder, 'model.safetensors'))
    : await fromPretrained(folder, { dtype, embeddings });
if (use === 'used') {
  noGrad(() => {
    for (const [, weight] of kept.namedParameters()) scope(() => weight.sum().item());
  });
}
const seconds = (performance.now() - begun) / 1000;
const { user, system } = process.cpuUsage(usage);
console.log(
  JSON.stringify({
    seconds,
    cpuSeconds: (user + system) / 1e6,
    peakBytes: memory('VmHWM') - before.resident,
    anonymousBytes: memory('RssAnon') - before.anonymous,
    alive: Boolean(kept),
  }),
);
