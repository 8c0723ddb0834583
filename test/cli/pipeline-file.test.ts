// Pipeline files that do not load, or are not what they should be.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../train/job.js';
import { pipe, pipelineFile } from './spawn.js';

function fileOf(text: string): string {
  const path = join(temporaryFolder(), 'a.pipeline.ts');
  writeFileSync(path, text);
  return path;
}

describe('a pipeline file', () => {
  it.each([
    [
      'that throws',
      "throw new Error('not today');",
      'expected a module that loads, received not today; correct',
    ],
    [
      'with a syntax error',
      'export default {\n  name: ;\n};',
      /expected a module that loads, received .*Unexpected token.*2:8/s,
    ],
    [
      'that imports what is not there',
      "import { nothing } from './gone.js';\nexport default nothing;",
      /expected a module that loads, received Cannot find module '.\/gone.js'/,
    ],
    [
      'that gives a builder a wrong value',
      "import { orderedMap } from 'sluice';\nexport default orderedMap((x) => x, { concurrency: 0 });",
      /received orderedMap: concurrency: expected a positive whole number, received 0; .*; correct the file/,
    ],
    [
      'without a default export',
      'export const a = 1;',
      'expected a default export made by pipeline({...}), received none',
    ],
    [
      'whose default export is a function',
      'export default () => ({});',
      '(root): Invalid input: expected object',
    ],
  ])('%s is refused with its name, and code 2', async (_, text, message) => {
    const file = fileOf(text);
    const { code, stdout, stderr } = await pipe('run', file, '--json');
    expect(stderr).toContain(`ConfigError: ${file}: `);
    expect(stderr).toMatch(message);
    expect([code, stdout]).toEqual([2, '']);
  });

  it('can be JavaScript, and spread another', async () => {
    const base = await pipelineFile({ sinks: '' });
    const file = join(temporaryFolder(), 'b.pipeline.mjs');
    writeFileSync(
      file,
      `import base from ${JSON.stringify(base)};
import { constant, pipeline, sft, adamw } from 'sluice';
export default pipeline({ ...base, name: 'b', step: { ...base.step, clipNorm: -1 }, threads: 0 });`,
    );
    const { code, stderr } = await pipe('run', file);
    expect(stderr.trim().split('\n')).toEqual([
      expect.stringMatching(/^ConfigError: .*b\.pipeline\.mjs: step\.clipNorm: .*>0, received -1;/),
      expect.stringMatching(/b\.pipeline\.mjs: threads: .*>0, received 0;/),
    ]);
    expect(code).toBe(2);
  });

  it('takes overrides only where it has plain options', async () => {
    const file = await pipelineFile();
    const { code, stderr } = await pipe(
      ...[
        'run',
        file,
        '--set',
        'flow.0.name=x',
        '--set',
        'flow.9.size=1',
        '--set',
        'step.lr.x=1',
        '--set',
        '=1',
      ],
    );
    expect(stderr.trim().split('\n')).toEqual([
      "ConfigError: --set flow.0.name: expected plain options before 'name', received an object that the file has made " +
        'with them; change it in the file',
      '--set flow.9.size: expected an index from 0 to 3, received 9; correct the path',
      '--set =1: expected key.path=value, received no key before "="; write for example --set step.maxSteps=100',
      `${file}: step.lr: expected a known key, received an unknown one; remove it or correct its spelling`,
    ]);
    expect(code).toBe(2);
  });
});
