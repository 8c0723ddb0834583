// Runs that are killed at any moment, and continued: the end is that of a run that was never killed, bit for bit.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { listCheckpoints } from '../../src/checkpoint/training-state.js';
import { random } from '../../src/data/random.js';
import { colourRows, metricsOf, temporaryFolder, writeRows } from '../train/job.js';
import { pipelineFile, start } from './spawn.js';

/** Kills in all; `npm run soak` asks for more. */
const KILLS = Number(process.env['SOAK'] ?? 3);
const STEPS = 16;

/** Digests of what the last checkpoint holds, and the curve as it is logged. */
function endOf(out: string) {
  const folder = join(out, `checkpoint-${STEPS}`);
  const files = ['model.safetensors', 'optimizer.safetensors', 'state.json'].map((name) =>
    createHash('sha256')
      .update(readFileSync(join(folder, name)))
      .digest('hex'),
  );
  const steps = metricsOf(out)
    .filter(({ event }) => event === 'step')
    .map(({ step, loss, gradNorm, samples }) => [step, loss, gradNorm, samples]);
  return { files, steps };
}

it(
  `a run that is killed ${KILLS} times ends as one that is not, over epochs, bad rows and checkpoints being written`,
  async () => {
    const rows = (await colourRows(26)).map((row, i) => (i % 9 === 4 ? { ...row, image: null } : row));
    const data = writeRows(join(temporaryFolder(), 'rows.parquet'), rows);
    const file = await pipelineFile({
      source: `source: parquet(${JSON.stringify(data)}, { shuffle: { seed: 1 }, epochs: 50 }),`,
      step: `step: sft({ optimizer: adamw({ lr: 1e-3 }), schedule: constant(), clipNorm: 1, maxSteps: ${STEPS},
        accumulate: 2 }),`,
      sinks: 'metrics(), checkpoints({ every: 2, keep: 2 })',
    });
    const whole = temporaryFolder();
    const begun = performance.now();
    expect(await start(['run', file, '--json', '--out', whole]).ended).toEqual({ code: 0, signal: null });
    const wholeMs = performance.now() - begun;

    const draw = random(7);
    const wait = (): number => (draw.below(1000) / 1000) * wholeMs;
    const expected = endOf(whole);
    for (let kills = 0; kills < KILLS;) {
      const out = temporaryFolder();
      // Up to three kills of one run, then it may go on to its end.
      for (let times = Math.min(1 + draw.below(3), KILLS - kills); times >= 0; times--) {
        const resume = listCheckpoints(out).length > 0 ? ['--resume'] : [];
        const run = start(['run', file, '--json', '--out', out, ...resume]);
        const ended = run.ended.then(() => true);
        const done = times === 0 ? await ended : await Promise.race([ended, delay(wait(), false)]);
        if (!done) {
          run.child.kill('SIGKILL');
          await run.ended;
          kills++;
        } else if (times > 0) break; // it was quicker
      }
      expect(endOf(out)).toEqual(expected);
    }
  },
  60_000 * Math.max(2, KILLS),
);
