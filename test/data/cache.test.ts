import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cache, uncached } from '../../src/data/cache.js';
import { plainBytes, plainValue } from '../../src/data/plain-value.js';
import { slowCrc32 } from '../../src/data/cache-record.js';
import { assistant, chat, image, text, user } from '../../src/data/chat.js';
import { loadProcessor } from '../../src/data/processor.js';
import { decodeMedia, encode, type SampleNotice, type StageContext } from '../../src/data/stages.js';
import type { Example, Sample } from '../../src/data/types.js';
import { filter, flatMap, map, orderedMap, batch as gather, runFlow, tee } from '../../src/flow/index.js';
import type { FlowPosition, Source, Stage } from '../../src/flow/index.js';
import { make, part } from '../../src/parts.js';
import { decode } from '../../src/schema.js';
import { pictureBytes, tinyFolder } from '../reference/processor-values.js';

const processor = await loadProcessor(tinyFolder);
let dir: string;
beforeEach(() => (dir = fs.mkdtempSync(join(tmpdir(), 'sluice-cache-'))));
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

function made<A, B>(declared: unknown, context: Partial<StageContext> = {}): Stage<A, B> {
  const decoded = decode(part('stage'), declared, 'flow') as never;
  return make<StageContext, Stage<A, B>>(decoded, { processor, purpose: 'train', ...context });
}

function source<T>(values: readonly T[]): Source<T> {
  return {
    name: 'samples',
    open: async function* () {
      for (const [row, value] of values.entries())
        yield { value, bytes: 1000, origin: { file: '/data/a.parquet', rowGroup: 0, row } };
    },
  };
}

const files = (): string[] => fs.readdirSync(dir).filter((name) => name !== 'lock');

/** Runs numbers through a cache of what `stages` make of them, to their end. */
async function run(
  stages: readonly unknown[],
  values: readonly unknown[],
  options = {},
  from?: FlowPosition,
) {
  const out: unknown[] = [];
  const notices: SampleNotice[] = [];
  const positions: FlowPosition[] = [];
  const declared = cache(stages as never, { maxBytes: 10e6, dir, ...options });
  const { ledger } = await runFlow<unknown>({
    source: source(values),
    stages: [made(declared, { onNotice: (notice) => notices.push(notice) })] as never,
    poolBytes: 1e6,
    ...(from && { from }),
    consume: (value, { position }) => {
      out.push(value);
      positions.push(position);
    },
  });
  await expect.poll(() => files().filter((name) => name.endsWith('.open'))).toEqual([]);
  return { out, ledger, notices, positions };
}

const numbers = Array.from({ length: 40 }, (_, i) => i);
const counts = { calls: 0 };
const double = () => orderedMap((n: number) => (counts.calls++, { n: Float32Array.of(2 * n) }));

describe('cache', () => {
  it('runs its stages on no sample that it knows, and gives the same cold, half warm and warm', async () => {
    counts.calls = 0;
    const half = await run([double()], numbers.slice(0, 20));
    expect(counts.calls).toBe(20);
    const warm = await run([double()], numbers);
    expect(counts.calls).toBe(40);
    const again = await run([double()], numbers);
    expect(counts.calls).toBe(40);
    expect(warm.out).toEqual(numbers.map((n) => ({ n: Float32Array.of(2 * n) })));
    expect(warm.out.slice(0, 20)).toEqual(half.out);
    expect(again).toEqual(warm);
  });

  it('misses samples whose data, stages or version have changed', async () => {
    counts.calls = 0;
    await run([double()], [1, 2]);
    expect((await run([double()], [1, 3])).out).toEqual([
      { n: Float32Array.of(2) },
      { n: Float32Array.of(6) },
    ]);
    expect(counts.calls).toBe(3);
    expect((await run([map((n: number) => n + 1)], [1, 2])).out).toEqual([2, 3]);
    await run([double()], [1, 3], { version: 2 });
    expect(counts.calls).toBe(5);
  });

  it('keeps what is dropped and split as it was, with positions that a run goes on from', async () => {
    const stages = [
      filter((n: number) => n % 3 !== 0),
      flatMap((n: number) => [n, -n, n / 2]),
      filter((n: number) => Number.isInteger(n)),
    ];
    const cold = await run(stages, numbers);
    const warm = await run(stages, numbers);
    expect(warm).toEqual(cold);
    for (const at of [0, 7, 30]) {
      const rest = await run(stages, numbers, {}, warm.positions[at]);
      expect(rest.out).toEqual(cold.out.slice(at + 1));
      expect(rest.positions).toEqual(cold.positions.slice(at + 1));
    }
  });

  it('tries quarantined samples again, and keeps the others', async () => {
    let calls = 0;
    const stages = [
      map((n: number) => {
        calls += 1;
        if (n === 2) throw new Error('no');
        return n;
      }),
    ];
    for (let time = 0; time < 2; time++) {
      const { out, ledger } = await run(stages, [1, 2, 3]);
      expect(out).toEqual([1, 3]);
      expect(ledger).toMatchObject({ trained: 2, quarantined: 1 });
    }
    expect(calls).toBe(4);
  });

  it('makes anew what is damaged, and says so once', async () => {
    counts.calls = 0;
    await run([double()], numbers);
    const path = join(dir, files()[0]!);
    const bytes = fs.readFileSync(path);
    for (let at = 60; at < bytes.length * 0.6; at += 50) bytes[at]! ^= 0xff;
    fs.writeFileSync(path, bytes);
    const { out, notices } = await run([double()], numbers);
    expect(out).toEqual(numbers.map((n) => ({ n: Float32Array.of(2 * n) })));
    expect(counts.calls).toBeGreaterThan(40);
    expect(notices).toHaveLength(1);
    expect(notices[0]!.message).toMatch(/an entry cannot be read .* made anew/);
  });

  it('reads what a killed process has left, as far as it is whole', async () => {
    counts.calls = 0;
    await run([double()], numbers);
    const path = join(dir, files()[0]!);
    const bytes = fs.readFileSync(path);
    fs.rmSync(path);
    fs.writeFileSync(path, bytes.subarray(0, bytes.length >> 1));
    const { out, notices } = await run([double()], numbers);
    expect(out).toEqual(numbers.map((n) => ({ n: Float32Array.of(2 * n) })));
    expect(counts.calls).toBeGreaterThan(50);
    expect(counts.calls).toBeLessThan(80);
    expect(notices).toEqual([]);
  });

  it('stays below its bound, and says that it is full', async () => {
    const big = [map((n: number) => new Uint8Array(10_000).fill(n))];
    const { notices } = await run(big, numbers, { maxBytes: 100_000 });
    expect(notices.map(({ message }) => message)).toEqual([
      expect.stringMatching(/is full \(maxBytes: 100000\)/),
    ]);
    const used = files().reduce((sum, name) => sum + fs.statSync(join(dir, name)).size, 0);
    expect(used).toBeLessThanOrEqual(100_000);
    expect(used).toBeGreaterThan(70_000);
  });

  it('goes on without a folder that cannot be made', async () => {
    const path = join(dir, 'file');
    fs.writeFileSync(path, '');
    const { out, notices } = await run([map((n: number) => n + 1)], [1, 2], { dir: path });
    expect(out).toEqual([2, 3]);
    expect(notices).toHaveLength(1);
    expect(notices[0]!.message).toMatch(/no more samples are kept, and the run goes on/);
  });

  it('does not keep what is no plain data, and names it', async () => {
    const { out, notices } = await run([map((n: number) => ({ a: [new Map([[n, n]])] }))], [1, 2]);
    expect(out).toHaveLength(2);
    expect(notices[0]!.message).toMatch(
      /cache: leaves\[0\]\.value\.a\[0\]: expected plain data.*received Map/,
    );
  });

  it('refuses stages that gather samples or look at them', () => {
    const declare = (stage: unknown) => cache([stage] as never, { maxBytes: 1e6, dir });
    expect(() => made(declare(gather({ size: 2 }, (all: readonly number[]) => all)))).toThrow(
      /which gathers several/,
    );
    expect(() => made(declare(tee({ write: () => undefined })))).toThrow(/would not see/);
    expect(() => made({ ...declare(map(String)), maxBytes: 0 })).toThrow(/maxBytes/);
  });

  it('keeps examples of pictures bit for bit', async () => {
    const sample = (answer: string): Sample =>
      chat(user(image(pictureBytes('large.jpg')), text('what color?')), assistant(text(answer)));
    const samples = ['red', 'blue'].map(sample);
    const plain: Example[] = [];
    await runFlow<Sample>({
      source: source(samples),
      stages: [made(decodeMedia()), made(encode())] as never,
      poolBytes: 10e6,
      consume: (example) => void plain.push(example as unknown as Example),
    });
    const stages = [decodeMedia(), encode()];
    expect((await run(stages, samples)).out).toEqual(plain);
    expect((await run(stages, samples)).out).toEqual(plain);
  });

  it('is left out where only what its stages make counts', () => {
    const [a, b, c] = [decodeMedia(), encode(), map(String)];
    expect(uncached([c, cache([a, b], { maxBytes: 1 })])).toEqual([c, a, b]);
  });
});

describe('plain values', () => {
  it('come back as they were', () => {
    const value = {
      list: [1, -0, NaN, Infinity, null, undefined, 'ü\ud800', 12n, true, new Date(5)],
      ['__proto__']: { x: 1 },
      arrays: [Float64Array.of(1.5), BigInt64Array.of(-1n), Buffer.from('ab'), new Int16Array(3).subarray(1)],
    };
    const { tree, arrays } = plainBytes(value, 'x');
    const back = plainValue(tree, Buffer.concat(arrays));
    expect(back).toStrictEqual(value);
    expect(() => plainValue(tree, Buffer.alloc(3))).toThrow(/as it was written/);
  });

  it('are summed alike by both checks', () => {
    expect(slowCrc32(Buffer.from('123456789'))).toBe(0xcbf43926);
  });
});
