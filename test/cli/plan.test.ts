// `pipe plan` as its users start it: what it prints, its exit codes, and that it opens no engine.

import { execFile } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { pipelineCode } from '../../src/cli/pipeline-code.js';
import { temporaryFolder } from '../train/job.js';
import { pipe, pipelineFile } from './spawn.js';

const bin = fileURLToPath(new URL('../../dist/cli/pipe.js', import.meta.url));

describe('pipe plan', () => {
  it('prints a plan for people, and one object for programs', async () => {
    const file = await pipelineFile();
    const told = await pipe('plan', file);
    expect(told).toMatchObject({ code: 0, stderr: '' });
    expect(told.stdout).toMatch(/^job: training\n {2}epoch {8}16 items, 16 samples, \d+ batches\n/);
    expect(told.stdout).toContain('read from the data, headers of media only');

    const { code, stdout, stderr } = await pipe(
      'plan',
      file,
      '--json',
      '--step-ms',
      '5',
      '--stage-ms',
      'encode=1',
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.trimEnd().split('\n')).toHaveLength(1);
    const plan = JSON.parse(stdout) as Record<string, Record<string, unknown>>;
    expect(Object.keys(plan)).toEqual(['name', 'training', 'evaluations']);
    const { training } = plan as { training: Record<string, unknown> };
    expect(Object.keys(training).sort()).toEqual([
      ...['accumulate', 'batches', 'checkpointBytes', 'clips', 'cut', 'dropped', 'endsBy', 'epoch', 'holds'],
      ...['images', 'items'],
      ...['labels', 'longest', 'maxPoolBytes', 'maxSteps', 'mix', 'neededBytes', 'notes', 'paddedTokens'],
      ...['paddingShare', 'peakBytes', 'poolBytes', 'quarantined', 'quarantinedRows', 'samples', 'scan'],
      ...['soundSeconds', 'stages', 'stalls', 'steps', 'tokens', 'wholePeakBytes'],
    ]);
    expect(training).toMatchObject({ samples: 16, scan: { from: 'cache' }, stalls: { stepMs: 5 } });
  });

  it('refuses with code 2 what cannot run, with the messages of the run', async () => {
    const file = await pipelineFile();
    const refused = async (expected: RegExp, ...args: string[]) => {
      const { code, stderr, stdout } = await pipe('plan', file, ...args);
      expect(stderr).toMatch(expected);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    };
    await refused(/pool of 1000 bytes: expected at least \d+ bytes/, '--set', 'poolBytes=1000');
    await refused(/maxSteps/, '--set', 'step.maxSteps=none');
    await refused(/none\.parquet/, '--set', 'source.files=none.parquet');
    await refused(/--step-ms: expected a step's time/, '--stage-ms', 'encode=1');
    await refused(
      /stageMs: expected stages before the batch: .*received encoder/,
      '--step-ms',
      '1',
      '--stage-ms',
      'encoder=1',
    );
    await refused(
      /expected stages before the batch: .*received encoder/,
      ...['--step-ms', '1', '--stage-ms', 'encode=1', '--stage-ms', 'encoder=1'],
    );
    await refused(/--stage-ms: expected times such as/, '--step-ms', '1', '--stage-ms', 'encode');
    expect((await pipe('plan', 'no.pipeline.ts')).code).toBe(2);
  });

  it('opens neither the addon nor libtorch', async () => {
    const folder = temporaryFolder();
    const preload = join(folder, 'opened.cjs');
    writeFileSync(
      preload,
      `process.once('exit', () => process.stderr.write('opened: ' + JSON.stringify(process.report.getReport().sharedObjects)));`,
    );
    const file = await pipelineFile();
    const { stderr } = await promisify(execFile)(process.execPath, ['--require', preload, bin, 'plan', file]);
    const opened = JSON.parse(stderr.slice(stderr.indexOf('opened: ') + 8)) as string[];
    expect(opened.some((path) => path.includes('sharp'))).toBe(true);
    expect(opened.filter((path) => /torch|c10|sluice.*\.node|addon/.test(path))).toEqual([]);
  });

  it('reads the data again when a module that the file imports has changed, and not for its own options', async () => {
    const file = await pipelineFile();
    const folder = dirname(file);
    mkdirSync(join(folder, 'lib'));
    writeFileSync(join(folder, 'lib', 'words.ts'), "import './deep.js';\nexport const word = 'a';\n");
    writeFileSync(join(folder, 'lib', 'deep.ts'), 'export {};\n');
    const job = join(folder, 'other.ts');
    const write = (size: number) =>
      writeFileSync(job, `import { word } from './lib/words.js';\nexport default make(word, ${size});\n`);
    write(4);
    const first = pipelineCode(job);
    write(8);
    expect(pipelineCode(job)).toBe(first);
    appendFileSync(join(folder, 'lib', 'deep.ts'), 'export const more = 1;\n');
    expect(pipelineCode(job)).not.toBe(first);
    expect(existsSync(join(folder, '.sluice'))).toBe(false);
  });
});
