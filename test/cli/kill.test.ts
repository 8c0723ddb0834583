// Runs that are killed at any moment, and continued: the end is that of a run that was never killed, bit for bit.

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet';
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

/** The items that were lost before the stream stood at the last step: once each, in the table as in metrics.jsonl. */
async function lostOf(out: string) {
  const { position } = JSON.parse(readFileSync(join(out, `checkpoint-${STEPS}`, 'state.json'), 'utf8')) as {
    position: { stream: { item: number } };
  };
  const before = (item: number): boolean => item < position.stream.item;
  const table = await parquetReadObjects({
    file: await asyncBufferFromFile(join(out, 'quarantine.parquet')),
  });
  const inTable = table.map(({ item, row }) => [Number(item), Number(row)]).filter(([item]) => before(item!));
  const told = metricsOf(out).filter(({ event, item }) => event === 'quarantine' && before(item as number));
  const byItem = (a: number, b: number): number => a - b;
  return {
    table: inTable.sort(([a], [b]) => byItem(a!, b!)),
    told: told.map(({ item }) => item as number).sort(byItem),
  };
}

it(
  `a run that is killed ${KILLS} times ends as one that is not, over epochs, bad rows and checkpoints being written`,
  async () => {
    const rows = (await colourRows(26)).map((row, i) => (i % 13 === 4 ? { ...row, image: null } : row));
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
    const expectedLost = await lostOf(whole);
    expect(expectedLost.table.length).toBeGreaterThan(5);
    expect(expectedLost.told).toEqual(expectedLost.table.map(([item]) => item));
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
      expect(await lostOf(out)).toEqual(expectedLost);
    }
  },
  60_000 * Math.max(2, KILLS),
);

/** Resolves when a checkpoint of at least this step is being written. */
async function beingWritten(out: string, step: number): Promise<void> {
  for (;;) {
    const names = existsSync(out) ? readdirSync(out) : [];
    const steps = names.map((name) => Number(/^\.checkpoint-(\d+)\.partial-/.exec(name)?.[1] ?? -1));
    if (steps.some((found) => found >= step)) return;
    await turn();
  }
}

it('a run that is killed while a checkpoint is being written goes on from the one before, to the same end', async () => {
  const file = await pipelineFile({
    rows: 16,
    epochs: 50,
    step: `step: sft({ optimizer: adamw({ lr: 1e-3 }), schedule: constant(), clipNorm: 1, maxSteps: ${STEPS} }),`,
    sinks: 'metrics(), checkpoints({ every: 3, keep: 2 })',
  });
  const whole = temporaryFolder();
  expect(await start(['run', file, '--json', '--out', whole]).ended).toEqual({ code: 0, signal: null });
  const out = temporaryFolder();
  const left: boolean[] = [];
  for (const step of [6, 12]) {
    const run = start(['run', file, '--json', '--out', out, ...(step > 6 ? ['--resume'] : [])]);
    await Promise.race([beingWritten(out, step), run.ended]);
    run.child.kill('SIGKILL');
    expect((await run.ended).signal).toBe('SIGKILL');
    left.push(readdirSync(out).some((name) => name.includes('.partial-')));
    const steps = listCheckpoints(out).map((checkpoint) => checkpoint.step);
    expect(Math.max(...steps)).toBeGreaterThanOrEqual(step - 3);
  }
  // the processor may be so slow to kill that the write is over
  expect(left).toContain(true);
  expect(await start(['run', file, '--json', '--out', out, '--resume']).ended).toEqual({
    code: 0,
    signal: null,
  });
  expect(endOf(out)).toEqual(endOf(whole));
  expect(readdirSync(out).filter((name) => name.includes('partial'))).toEqual([]);
});
