import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { AudioError } from '../../src/errors.js';
import { decodeAudio } from '../../src/audio/index.js';
import { DecoderPool, type PoolOptions } from '../../src/audio/pool.js';
import { bytesOf, clipBytes, wav } from './fixtures.js';

const entry = new URL('./mischief.worker.mjs', import.meta.url);
const pools: DecoderPool[] = [];

function pool(options: Partial<PoolOptions> = {}): DecoderPool {
  const opened = new DecoderPool({ entry, numThreads: 1, ...options });
  pools.push(opened);
  return opened;
}

afterEach(async () => {
  for (const opened of pools.splice(0)) await opened.close();
});

/** What a thread answers: how many clips it has had, the length of this one, and its first byte. */
async function send(
  to: DecoderPool,
  where: string,
  signal?: AbortSignal,
  bytes = Uint8Array.of(7),
): Promise<unknown> {
  const clip = { where, format: 'wav', maxSeconds: 30, sampleRateHz: 16_000 } as const;
  try {
    return [...(await to.decode(bytes, clip, signal)).data];
  } catch (error) {
    return error;
  }
}

const stopped = (where: string, reason: string): string =>
  `${where}: expected the decoder to come to an end, received ${reason}; the file may be corrupt, or made to harm: drop the row`;

describe('the decoding threads', () => {
  it('start with clips, as many as allowed, and take turns', async () => {
    const threads = pool({ numThreads: 2 });
    expect(threads.size).toBe(0);
    const answers = await Promise.all(Array.from({ length: 6 }, () => send(threads, 'answer 20')));
    expect(threads.size).toBe(2);
    // each counts its own; how many clips fall to which is the machine's affair
    const counts = answers.map((answer) => (answer as number[])[0]!);
    expect(counts.filter((count) => count === 1)).toHaveLength(2);
    const [most, less] = [Math.max(...counts), 6 - Math.max(...counts)];
    const upTo = (count: number) => Array.from({ length: count }, (_, i) => i + 1);
    expect(counts.toSorted()).toEqual([...upTo(most), ...upTo(less)].toSorted());
  });

  it('end when idle and start again', async () => {
    const threads = pool({ idleMs: 30 });
    await send(threads, 'answer');
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(threads.size).toBe(0);
    expect(await send(threads, 'answer')).toEqual([1, 1, 7]);
  });

  it('take what lies in a view of larger memory, and leave it there', async () => {
    const row = Uint8Array.of(1, 2, 3, 4);
    expect(await send(pool(), 'answer', undefined, row.subarray(1, 3))).toEqual([1, 2, 2]);
    expect([...row]).toEqual([1, 2, 3, 4]);
  });

  it.each([
    ['exit', 'it ended with code 3'],
    ['throw', 'out of nowhere'],
    ['hang', 'nothing for 2 s'],
  ])('that %s cost their clip alone', async (word, reason) => {
    const threads = pool({ timeoutMs: 2000 });
    const [failed, next] = await Promise.all([send(threads, word), send(threads, 'answer')]);
    expect(failed).toBeInstanceOf(AudioError);
    expect((failed as Error).message).toBe(stopped(word, reason));
    expect(next).toEqual([1, 1, 7]);
  });

  it('that fill their heap cost their clip alone', async () => {
    const threads = pool({ heapMiB: 32 });
    const [failed, next] = await Promise.all([send(threads, 'swell'), send(threads, 'answer')]);
    expect((failed as Error).message).toContain('swell: expected the decoder to come to an end, received');
    expect((failed as Error).message).toContain('memory');
    expect(next).toEqual([1, 1, 7]);
  });

  it('whose decoder broke are replaced; those that refused a clip go on', async () => {
    const threads = pool();
    expect(await send(threads, 'refuse')).toMatchObject({ name: 'AudioError', message: 'refused' });
    expect(await send(threads, 'answer')).toEqual([2, 1, 7]);
    expect(await send(threads, 'broken')).toMatchObject({ message: 'it broke' });
    expect(await send(threads, 'answer')).toEqual([1, 1, 7]);
  });

  it('drop clips that are aborted, waiting or under way', async () => {
    const threads = pool();
    const [first, second] = [new AbortController(), new AbortController()];
    const answers = [
      send(threads, 'answer 100', first.signal),
      send(threads, 'answer', second.signal),
      send(threads, 'answer'),
    ];
    first.abort(new Error('no more'));
    second.abort(new Error('nor this'));
    expect(await answers[0]).toMatchObject({ message: 'no more' });
    expect(await answers[1]).toMatchObject({ message: 'nor this' });
    // The clip under way came to its end; the waiting one never began.
    expect(await answers[2]).toEqual([2, 1, 7]);
    expect(await send(threads, 'answer', AbortSignal.abort(new Error('before')))).toMatchObject({
      message: 'before',
    });
  });

  it('reject what is open when they are closed', async () => {
    const threads = pool();
    const answers = [send(threads, 'answer 1000'), send(threads, 'answer')];
    await threads.close();
    for (const answer of answers) {
      expect(await answer).toMatchObject({ message: 'audio: the decoding threads were closed' });
    }
  });
});

/** Time that the main thread was on a processor. */
const mainThreadMs = (): number =>
  Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6;

describe('decodeAudio', () => {
  it.skipIf(process.platform !== 'linux')('leaves the main thread free', async () => {
    const clips = Array.from({ length: 6 }, () =>
      wav(bytesOf(new Int16Array(15 * 48_000)), { sampleRateHz: 48_000 }),
    );
    await decodeAudio(clipBytes('8bit-8k.flac'));
    // processor time, as waiting for a processor keeps a loop from turning too
    const [mine, all] = [mainThreadMs(), process.cpuUsage()];
    await Promise.all(clips.map((bytes) => decodeAudio(bytes)));
    const { user, system } = process.cpuUsage(all);
    expect(mainThreadMs() - mine).toBeLessThan((user + system) / 1000 / 2);
  });

  it('ends with the reason of its signal', async () => {
    const reason = new Error('stop');
    await expect(
      decodeAudio(clipBytes('8bit-8k.flac'), 'clip', { signal: AbortSignal.abort(reason) }),
    ).rejects.toBe(reason);
  });

  it('does not keep the process alive', () => {
    const script = `
      import { readFileSync } from 'node:fs';
      import { decodeAudio } from ${JSON.stringify(new URL('../../dist/audio/index.js', import.meta.url).href)};
      const bytes = readFileSync(${JSON.stringify(fileURLToPath(new URL('../../fixtures/reference/audio/8bit-8k.flac', import.meta.url)))});
      const { data } = await decodeAudio(bytes);
      console.log(data.length, process.uptime());
    `;
    const begun = performance.now();
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    const [length, uptime] = stdout.trim().split(' ').map(Number);
    expect(length).toBe(1_600);
    // Idle threads live for 5 s.
    expect((performance.now() - begun) / 1e3 - uptime!).toBeLessThan(3);
  });
});
