// Runs whose checkpoints find no room: the shell's limit on the size of files makes every larger write fail.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { eventsIn, temporaryFolder } from '../train/job.js';
import { pipelineFile } from './spawn.js';

const bin = fileURLToPath(new URL('../../dist/cli/pipe.js', import.meta.url));

/** Runs `pipe` where no file may be larger than so many blocks of 512 or 1024 bytes, as the shell counts. */
async function limited(blocks: number, args: readonly string[]) {
  const child = spawn(
    'sh',
    ['-c', `ulimit -f ${blocks} && exec "$@"`, 'sh', process.execPath, bin, ...args],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text));
  }
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, ...output };
}

it('a run trains to its end, says of each checkpoint what became of it, and leaves with 1', async () => {
  const file = await pipelineFile({ rows: 16, sinks: 'metrics(), checkpoints({ every: 2 })' });
  const out = temporaryFolder();
  const { code, stdout, stderr } = await limited(300, ['run', file, '--json', '--out', out]);
  expect(code).toBe(1);
  const events = eventsIn(stdout);
  expect(events.filter(({ event }) => event === 'step')).toHaveLength(4);
  const failed = events.filter(({ event }) => event === 'checkpoint-failed');
  expect(failed.map(({ step }) => step)).toEqual([2, 4, 4]);
  expect(failed[0]!['error']).toMatch(
    /checkpoint-2: expected to write the checkpoint, received EFBIG: file too large, write; lift the limit on file sizes/,
  );
  expect(events.at(-1)).toMatchObject({ event: 'end', outcome: 'failed', steps: 4 });
  expect(stderr).toContain('checkpoint of step 2 failed, the run goes on; none is complete yet: ');
  expect(stderr).toMatch(/checkpoint-4: expected to write the checkpoint, received EFBIG/);
  expect(readdirSync(out).filter((name) => name.includes('checkpoint'))).toEqual([]);
});
