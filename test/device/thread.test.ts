import { afterEach, describe, expect, it } from 'vitest';
import { DeviceThread } from '../../src/device/thread.js';
import { ConfigError, DataError, SluiceError, TrainError } from '../../src/errors.js';

interface Api {
  echo(value: unknown): unknown;
  slowly(name: string, ms: number): string[];
  sum(array: Float32Array): number;
  refuse(): void;
  collate(): void;
  stumble(): void;
  shout(): void;
  unsendable(): void;
  until(signal?: AbortSignal): void;
  die(): void;
  crash(): void;
}

const threads: DeviceThread<Api>[] = [];

function thread(): DeviceThread<Api> {
  const opened = new DeviceThread<Api>(new URL('./echo.worker.mjs', import.meta.url));
  threads.push(opened);
  return opened;
}

afterEach(async () => {
  for (const opened of threads.splice(0)) await opened.terminate();
});

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (error: unknown) => error as Error & { code: string },
  );

describe('a device thread', () => {
  it('does calls in order, one after the other', async () => {
    const device = thread();
    const calls = [
      device.call('slowly', ['a', 30]),
      device.call('slowly', ['b', 0]),
      device.call('slowly', ['c', 10]),
    ];
    expect(await Promise.all(calls)).toEqual([['a'], ['a', 'b'], ['a', 'b', 'c']]);
  });

  it('moves transferred arrays: the sender has nothing left', async () => {
    const device = thread();
    const array = Float32Array.of(1, 2, 3);
    const kept = Float32Array.of(4, 5);
    const sums = Promise.all([
      device.call('sum', [array], { transfer: [array.buffer] }),
      device.call('sum', [kept]),
    ]);
    expect([array.length, kept.length]).toEqual([0, 2]);
    expect(await sums).toEqual([6, 9]);
  });

  it('hands over errors with class, name, code, message, stack and cause', async () => {
    const device = thread();
    const refused = await failure(device.call('refuse', []));
    expect(refused).toBeInstanceOf(ConfigError);
    expect(refused).toMatchObject({
      name: 'ConfigError',
      code: 'CONFIG',
      message: 'here: expected a, received b; mend it',
      cause: { name: 'RangeError', message: 'too far', code: 'EFAR' },
    });
    expect(refused?.stack).toContain('echo.worker.mjs');

    const derived = await failure(device.call('collate', []));
    expect(derived).toBeInstanceOf(DataError);
    expect(derived).toMatchObject({ name: 'CollateError', code: 'DATA' });

    const foreign = await failure(device.call('stumble', []));
    expect(foreign).not.toBeInstanceOf(SluiceError);
    expect(foreign).toMatchObject({ name: 'TypeError', code: 'UNKNOWN', message: 'no function' });
    expect(await failure(device.call('shout', []))).toMatchObject({ message: 'just text' });
  });

  it('goes on after an error, and after what cannot cross', async () => {
    const device = thread();
    expect(await failure(device.call('unsendable', []))).toMatchObject({ name: 'DataCloneError' });
    expect(await failure(device.call('echo', [() => 1]))).toMatchObject({ name: 'DataCloneError' });
    expect(await failure(device.call('toString' as 'echo', [1]))).toMatchObject({
      message: "device thread: no method 'toString'",
    });
    expect(await device.call('echo', [{ a: [1n] }])).toEqual({ a: [1n] });
  });

  it('tells a method that its caller wants no answer any more', async () => {
    const device = thread();
    const controller = new AbortController();
    const waiting = failure(device.call('until', [], { signal: controller.signal }));
    const behind = device.call('echo', ['next']);
    await new Promise((resolve) => setTimeout(resolve, 30));
    controller.abort();
    expect(await waiting).toMatchObject({ name: 'AbortError' });
    expect(await behind).toBe('next');
    expect(await failure(device.call('until', [], { signal: AbortSignal.abort() }))).toMatchObject({
      name: 'AbortError',
    });
  });

  it.each([
    ['die', 'the thread ended with code 3'],
    ['crash', 'out of nowhere'],
  ] as const)('that dies (%s) rejects every call, open and later', async (method, received) => {
    const device = thread();
    const message =
      `device thread: expected it to run until the end, received ${received}; start again from the last ` +
      'checkpoint';
    const open = [device.call(method, []), device.call('echo', [1])].map(failure);
    for (const error of await Promise.all(open)) {
      expect(error).toBeInstanceOf(TrainError);
      expect(error).toMatchObject({ message });
    }
    expect(await failure(device.call('echo', [1]))).toMatchObject({ message });
  });

  it('that is terminated rejects what is open', async () => {
    const device = thread();
    const open = failure(device.call('slowly', ['a', 60_000]));
    await device.terminate();
    expect(await open).toMatchObject({ message: 'device thread: it was closed' });
  });
});
