// A cache's folder between processes: shared, killed at a write, on a full disk, beyond its bound, damaged.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { recordOf } from '../../src/data/cache-record.js';
import { CacheStore } from '../../src/data/cache-store.js';

let dir: string;
beforeEach(() => (dir = fs.mkdtempSync(join(tmpdir(), 'sluice-store-'))));
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

const STAGES = 'a'.repeat(32);
const OTHERS = 'b'.repeat(32);
const keyOf = (n: number): string => n.toString(16).padStart(32, '0');
const valueOf = (n: number, bytes: number) => ({ n, data: new Uint8Array(bytes).fill(n % 251) });

async function store(maxBytes: number, stages = STAGES) {
  const troubles: string[] = [];
  const opened = await CacheStore.open({ dir, stages, maxBytes, onTrouble: (each) => troubles.push(each) });
  return { store: opened, troubles };
}

async function fill(target: CacheStore, numbers: Iterable<number>, bytes: number): Promise<void> {
  for (const n of numbers) await target.put(recordOf(keyOf(n), valueOf(n, bytes), 'test')!);
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);
const segments = (): string[] => fs.readdirSync(dir).filter((name) => /\.(seg|open)$/.test(name));
const usedBytes = (): number => segments().reduce((sum, name) => sum + fs.statSync(join(dir, name)).size, 0);

/** Another process that writes records from one number to another, and tells each that is written. */
const CHILD = `
  import { CacheStore } from '${new URL('../../dist/data/cache-store.js', import.meta.url).href}';
  import { recordOf } from '${new URL('../../dist/data/cache-record.js', import.meta.url).href}';
  const [dir, stages, maxBytes, from, to, bytes] = process.argv.slice(1);
  const say = (line) => process.stdout.write(line + '\\n');
  const store = await CacheStore.open({ dir, stages, maxBytes: Number(maxBytes), onTrouble: (line) => say('trouble ' + line) });
  say('open');
  for (let n = Number(from); n < Number(to); n++) {
    const data = new Uint8Array(Number(bytes)).fill(n % 251);
    await store.put(recordOf(n.toString(16).padStart(32, '0'), { n, data }, 'test'));
    say('written ' + n);
  }
  await store.close();
  say('done');
`;

const childArguments = (maxBytes: number, from: number, to: number, bytes: number): string[] => [
  '--input-type=module',
  '-e',
  CHILD,
  dir,
  STAGES,
  ...[maxBytes, from, to, bytes].map(String),
];

function writer(maxBytes: number, from: number, to: number, bytes: number) {
  const child = spawn(process.execPath, childArguments(maxBytes, from, to, bytes), {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines: string[] = [];
  const wanted: { line: RegExp; resolve: () => void }[] = [];
  createInterface(child.stdout).on('line', (line) => {
    lines.push(line);
    for (const each of wanted) if (each.line.test(line)) each.resolve();
  });
  const said = (line: RegExp) =>
    new Promise<void>((resolve) => {
      wanted.push({ line, resolve });
      if (lines.some((each) => line.test(each))) resolve();
    });
  return { child, lines, said };
}

const ended = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
};

describe('processes that share a folder', () => {
  it('write at once, read what the others wrote, and stay below the bound together', async () => {
    const bytes = 20_000;
    const maxBytes = 16_000_000;
    const [one, two] = [writer(maxBytes, 0, 40, bytes), writer(maxBytes, 20, 60, bytes)];
    await Promise.all([ended(one.child), ended(two.child)]);
    for (const { lines } of [one, two]) {
      expect(lines.at(-1)).toBe('done');
      expect(lines.filter((line) => line.startsWith('trouble'))).toEqual([]);
    }
    expect(usedBytes()).toBeLessThanOrEqual(maxBytes);
    const { store: reader, troubles } = await store(maxBytes);
    expect(reader.size).toBe(60);
    for (const n of range(0, 60)) expect(await reader.get(keyOf(n))).toEqual(valueOf(n, bytes));
    expect(troubles).toEqual([]);
    await reader.close();
  });

  it('are told that it is full, and nothing that is in use goes', async () => {
    const maxBytes = 300_000;
    const [one, two] = [writer(maxBytes, 0, 40, 10_000), writer(maxBytes, 100, 140, 10_000)];
    await Promise.all([ended(one.child), ended(two.child)]);
    expect(usedBytes()).toBeLessThanOrEqual(maxBytes);
    expect(usedBytes()).toBeGreaterThan(maxBytes / 2);
    const told = [one, two].flatMap(({ lines }) => lines.filter((line) => line.startsWith('trouble')));
    expect(told.length).toBeGreaterThan(0);
    for (const line of told) expect(line).toContain(`${dir} is full (maxBytes: 300000)`);
  });
});

describe('a process that is killed while it writes', () => {
  it('leaves all that was whole, and a folder that the next one goes on with', async () => {
    const bytes = 50_000;
    const { child, lines, said } = writer(1e9, 0, 500, bytes);
    await said(/^written 20$/);
    child.kill('SIGKILL');
    await ended(child);
    const written = lines.filter((line) => line.startsWith('written')).length;

    const { store: next, troubles } = await store(1e9);
    expect(next.size).toBeGreaterThanOrEqual(written);
    for (const n of [...range(0, 5), written - 1])
      expect(await next.get(keyOf(n))).toEqual(valueOf(n, bytes));
    await fill(next, range(200_000, 200_003), bytes);
    await next.close();
    const { store: third } = await store(1e9);
    expect(await third.get(keyOf(200_002))).toEqual(valueOf(200_002, bytes));
    expect(await third.get(keyOf(0))).toEqual(valueOf(0, bytes));
    await third.close();
    expect(troubles).toEqual([]);
  });

  it('and left half a record: that one is missing, those before it are there', async () => {
    const { store: first } = await store(1e6);
    await fill(first, range(0, 10), 1000);
    const path = join(dir, segments()[0]!);
    const size = fs.statSync(path).size;
    fs.copyFileSync(path, join(dir, `${STAGES}-99-half.500000.open`)); // as its process would have left it
    await first.close();
    for (const name of segments().filter((each) => each.endsWith('.seg'))) fs.rmSync(join(dir, name));
    fs.truncateSync(join(dir, segments()[0]!), size - 500);
    const { store: next, troubles } = await store(1e6);
    expect(next.size).toBe(9);
    expect(await next.get(keyOf(8))).toEqual(valueOf(8, 1000));
    expect(await next.get(keyOf(9))).toBeUndefined();
    expect(troubles).toEqual([]);
    await next.close();
  });
});

describe('a disk that fills up', () => {
  it('is told once; what was written before can be read, and the process goes on', async () => {
    // As a full disk is to the process: no file may grow beyond so many blocks.
    const out = execFileSync(
      'sh',
      ['-c', 'ulimit -f 200 && exec "$@"', 'sh', process.execPath, ...childArguments(1e9, 0, 30, 20_000)],
      { encoding: 'utf8' },
    );
    const lines = out.trim().split('\n');
    expect(lines.at(-1)).toBe('done');
    expect(lines.filter((line) => line.startsWith('written'))).toHaveLength(30);
    const told = lines.filter((line) => line.startsWith('trouble'));
    expect(told).toHaveLength(1);
    expect(told[0]).toMatch(
      /cannot write \(EFBIG.*\): no more samples are kept, and the run goes on without/,
    );
    const { store: reader, troubles } = await store(1e9);
    expect(reader.size).toBeGreaterThan(2);
    expect(reader.size).toBeLessThan(30);
    for (const n of range(0, reader.size)) expect(await reader.get(keyOf(n))).toEqual(valueOf(n, 20_000));
    expect(troubles).toEqual([]);
    await reader.close();
  });
});

describe('the bound', () => {
  const age = (seconds: number): void => {
    const then = new Date(Date.now() - 1000 * seconds);
    for (const name of segments()) fs.utimesSync(join(dir, name), then, then);
  };

  it('is kept by removing what other stages made and nobody has used for a while', async () => {
    const { store: others } = await store(200_000, OTHERS);
    await fill(others, range(0, 18), 10_000);
    await others.close();
    age(3600);
    const { store: own, troubles } = await store(200_000);
    await fill(own, range(0, 15), 10_000);
    expect(troubles).toEqual([]);
    expect(usedBytes()).toBeLessThanOrEqual(200_000);
    for (const n of range(0, 15)) expect(await own.get(keyOf(n))).toEqual(valueOf(n, 10_000));
    await own.close();
    expect(segments().filter((name) => name.startsWith(OTHERS)).length).toBeLessThan(18);
  });

  it('does not push out what is in use: an epoch wants each sample as often as any other', async () => {
    const { store: first } = await store(200_000);
    await fill(first, range(0, 30), 10_000);
    const kept = first.size;
    await first.close();
    age(3600);
    const { store: next, troubles } = await store(200_000);
    await fill(next, range(100, 110), 10_000);
    expect(next.size).toBe(kept);
    expect(troubles).toEqual([expect.stringMatching(/is full \(maxBytes: 200000\)/)]);
    await next.close();
    age(2 * 86_400);
    const { store: days } = await store(200_000);
    await fill(days, range(100, 103), 10_000);
    expect(await days.get(keyOf(102))).toEqual(valueOf(102, 10_000));
    expect(usedBytes()).toBeLessThanOrEqual(200_000);
    await days.close();
  });

  it('admits no record that is larger than itself', async () => {
    const { store: small, troubles } = await store(5000);
    await fill(small, [1], 10_000);
    expect(small.size).toBe(0);
    expect(usedBytes()).toBe(0);
    expect(troubles).toHaveLength(1);
    await small.close();
  });
});

describe('what is damaged', () => {
  it('is missing, told once, and made anew; the rest is read', async () => {
    const { store: first } = await store(1e6);
    await fill(first, range(0, 10), 1000);
    await first.close();
    const path = join(dir, segments()[0]!);
    const bytes = fs.readFileSync(path);
    bytes[5 * Math.floor(bytes.length / 11)]! ^= 0x55;
    bytes[2 * Math.floor(bytes.length / 11)]! ^= 0x55;
    fs.writeFileSync(path, bytes);
    const { store: next, troubles } = await store(1e6);
    const read = await Promise.all(range(0, 10).map((n) => next.get(keyOf(n))));
    expect(read.filter((value) => value === undefined)).toHaveLength(2);
    for (const [n, value] of read.entries()) if (value !== undefined) expect(value).toEqual(valueOf(n, 1000));
    expect(troubles).toEqual([
      expect.stringMatching(/an entry cannot be read \(.*\): its sample, .* are made anew/),
    ]);
    const missing = range(0, 10).filter((n) => read[n] === undefined);
    await fill(next, missing, 1000);
    for (const n of missing) expect(await next.get(keyOf(n))).toEqual(valueOf(n, 1000));
    await next.close();
  });

  it('in the index is found by the records themselves, and a foreign file is left alone', async () => {
    const { store: first } = await store(1e6);
    await fill(first, range(0, 10), 1000);
    await first.close();
    const path = join(dir, segments()[0]!);
    const bytes = fs.readFileSync(path);
    bytes[bytes.length - 20]! ^= 0xff;
    fs.writeFileSync(path, bytes);
    const foreign = join(dir, `${STAGES}-1-x.seg`);
    fs.writeFileSync(foreign, 'none of ours, but of the right name and long enough to be looked at');
    const { store: next, troubles } = await store(1e6);
    expect(next.size).toBe(10);
    expect(await next.get(keyOf(9))).toEqual(valueOf(9, 1000));
    expect(troubles).toEqual([
      expect.stringMatching(/1-x\.seg cannot be read \(it is none of the cache\): it is left alone/),
    ]);
    expect(fs.existsSync(foreign)).toBe(true);
    await next.close();
  });
});
