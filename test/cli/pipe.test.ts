import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { examine } from '../../src/cli/doctor.js';
import { linkedEngine, machine, quickCompiler } from '../native/machine.js';

const bin = fileURLToPath(new URL('../../dist/cli/pipe.js', import.meta.url));

function pipe(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], { encoding: 'utf8' });
  return { status, stdout, stderr };
}

describe('pipe', () => {
  it('can be executed as it is', () => {
    accessSync(bin, constants.X_OK);
    expect(spawnSync(bin, ['--version'], { encoding: 'utf8' }).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it('--help lists the commands and is no error', () => {
    const { status, stdout } = pipe('--help');
    expect(status).toBe(0);
    for (const name of ['setup', 'doctor']) expect(stdout).toContain(`pipe ${name}`);
  });

  it.each([
    ['no command', [], 'Name a command'],
    ['an unknown command', ['setpu'], 'Did you mean setup?'],
    ['an unknown flag', ['doctor', '--jsn'], 'Unknown argument: jsn'],
    ['a stray argument', ['setup', 'now'], 'Unknown argument: now'],
  ])('%s shows the help on stderr and exits with 2', (_, args, message) => {
    const { status, stdout, stderr } = pipe(...args);
    expect(stderr).toContain(message);
    expect(stderr).toContain('Options:');
    expect(stdout).toBe('');
    expect(status).toBe(2);
  });

  it('setup is quick when all is there, and says where things lie', () => {
    const { status, stdout } = pipe('setup');
    expect(stdout).toMatch(
      /^libtorch 2\.\S+ \((LIBTORCH|python|cache)\) in \/.*\naddon \/.*\/sluice\.node\n$/,
    );
    expect(status).toBe(0);
  });
});

it.each([
  [['run', 'a.ts', '--out', 'a', '--out', 'b'], '--out: expected one value, received a and b'],
  [['plan', 'a.ts', '--step-ms', '1', '--step-ms', '2'], 'expected one value, received 1 and 2'],
])('an option that may be given once is refused when it is given twice: %j', (args, message) => {
  const { status, stderr } = pipe(...args);
  expect(stderr).toContain(message);
  expect(status).toBe(2);
});

describe('a set-up stopped by a signal', () => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s leaves in order with %i', async (signal, code) => {
    const on = machine();
    await quickCompiler(on, 'echo begun >> "$CALLS"; exec /bin/sleep 30');
    const env = { ...on.env, LIBTORCH: await linkedEngine(on) };
    const child = spawn(process.execPath, [bin, 'setup'], { env, stdio: 'ignore' });
    await expect.poll(() => on.calls(), { timeout: 50_000 }).toContain('begun');
    child.kill(signal);
    expect(await once(child, 'exit')).toEqual([code, null]);
    expect(readdirSync(on.cache)).not.toContain('setup.lock');
  });
});

describe('pipe doctor', () => {
  it('shows what was found, as text and as JSON', () => {
    const text = pipe('doctor');
    expect(text.status).toBe(0);
    expect(text.stdout).toMatch(/ ok engine +libtorch 2\./);
    expect(text.stdout).toMatch(/ ok cpu +capability \w+, BLAS \w+, \d+ threads/);
    const { ok, checks } = JSON.parse(pipe('doctor', '--json').stdout) as {
      ok: boolean;
      checks: { name: string; state: string; facts?: Record<string, unknown> }[];
    };
    expect(ok).toBe(true);
    const names = ['machine', 'engine', 'cpu', 'cuda', 'addon', 'compiler', 'python', 'sharp', 'ffmpeg'];
    expect(checks.map(({ name }) => name)).toEqual([...names, 'disk cache', 'disk here']);
    expect(checks.find(({ name }) => name === 'engine')?.facts).toMatchObject({
      version: expect.stringMatching(/^2\./) as string,
    });
  });

  it('on a bare machine has a command for everything that is missing', async () => {
    const { env } = machine();
    const checks = await examine(env);
    const missing = checks.filter(({ state }) => state === 'missing');
    expect(missing.map(({ name }) => name)).toEqual(['engine', 'cpu', 'addon', 'compiler', 'python']);
    for (const { remedy } of missing) expect(remedy).toMatch(/^(npx pipe setup|(sudo|brew) .*install .*)/);
    expect(checks.find(({ name }) => name === 'ffmpeg')).toMatchObject({
      state: 'optional',
      remedy: expect.stringMatching(/install ffmpeg$/) as string,
    });
  });
});
