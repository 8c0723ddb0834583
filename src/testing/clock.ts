// Virtual time for asynchronous code: the timers of JavaScript and Node, and with them those of RxJS, run by themselves in
// order of their time, and no real time passes. RxJS's TestScheduler virtualises its own timers alone and runs a test
// in one breath; a flow is full of promises, so here each timer is followed by everything that it sets free.
//
// Replaced: setTimeout, setInterval, setImmediate and what clears them, Date.now, performance.now, AbortSignal.timeout, and
// `node:timers/promises`. What does real work (files, sockets, worker threads) is not waited for.

import { syncBuiltinESMExports } from 'node:module';
import timers from 'node:timers';
import promises from 'node:timers/promises';
import { promisify } from 'node:util';

const realTurn = setImmediate;

interface Timer {
  readonly id: number;
  atMs: number;
  readonly delayMs: number;
  /** It comes again and again. */
  readonly repeats: boolean;
  readonly run: () => void;
  /** False for one that does not keep a program alive. */
  counts: boolean;
}

type Callback = (...args: unknown[]) => void;

/** A clock that stands still until `tick`. */
export class VirtualClock {
  /** Milliseconds since the clock was made. */
  nowMs = 0;
  private nextId = 1;
  private readonly timers = new Map<number, Timer>();

  /** Timers that keep a program alive. */
  get numTimers(): number {
    return [...this.timers.values()].filter(({ counts }) => counts).length;
  }

  /** Runs `fn` in this clock's time; one call at a time in a process, others wait. */
  async run<T>(fn: () => Promise<T>): Promise<T> {
    const before = turn;
    let done = (): void => {};
    turn = new Promise((resolve) => (done = resolve));
    await before;
    const restore = this.install();
    try {
      return await fn();
    } finally {
      restore();
      done();
    }
  }

  /** Lets everything happen that needs no time. */
  settle(): Promise<void> {
    return new Promise((resolve) => realTurn(resolve));
  }

  /** Goes on to the next timer and runs it. @returns false when there is none that counts */
  tick(): boolean {
    if (this.numTimers === 0) return false;
    let next: Timer | undefined;
    for (const timer of this.timers.values()) {
      if (!next || timer.atMs < next.atMs || (timer.atMs === next.atMs && timer.id < next.id)) next = timer;
    }
    if (!next) return false;
    this.nowMs = Math.max(this.nowMs, next.atMs);
    if (next.repeats) next.atMs = this.nowMs + Math.max(1, next.delayMs);
    else this.timers.delete(next.id);
    next.run();
    return true;
  }

  /** The time of the next timer, in milliseconds; undefined when there is none. */
  get nextMs(): number | undefined {
    const times = [...this.timers.values()].map(({ atMs }) => atMs);
    return times.length === 0 ? undefined : Math.max(this.nowMs, Math.min(...times));
  }

  /** @returns how to take it away */
  after(ms: number, run: () => void): () => void {
    const { id } = this.add(ms, run);
    return () => this.timers.delete(id);
  }

  private add(ms: unknown, run: () => void, repeats = false): Timer {
    const delayMs = Number(ms) > 0 ? Number(ms) : 0;
    const timer = { id: this.nextId++, atMs: this.nowMs + delayMs, delayMs, repeats, run, counts: true };
    this.timers.set(timer.id, timer);
    return timer;
  }

  /** A timer as Node hands it out. */
  private handle(timer: Timer): object {
    const handle = {
      timer,
      ref: () => ((timer.counts = true), handle),
      unref: () => ((timer.counts = false), handle),
      hasRef: () => timer.counts,
      refresh: () => ((timer.atMs = this.nowMs + timer.delayMs), handle),
      close: () => (this.timers.delete(timer.id), handle),
      [Symbol.toPrimitive]: () => timer.id,
      [Symbol.dispose]: () => void this.timers.delete(timer.id),
    };
    return handle;
  }

  private install(): () => void {
    const setTimer = (fn: Callback, ms?: unknown, ...args: unknown[]): object =>
      this.handle(this.add(ms, () => fn(...args)));
    const clear = (handle: unknown): void => {
      const id = (handle as { timer?: Timer } | null | undefined)?.timer?.id ?? Number(handle);
      this.timers.delete(id);
    };
    const wait = <T>(ms: unknown, value: T, { signal }: { signal?: AbortSignal } = {}): Promise<T> =>
      new Promise((resolve, reject) => {
        const aborted = (): void => reject(new DOMException('The operation was aborted', 'AbortError'));
        if (signal?.aborted) return aborted();
        const stop = this.after(Number(ms ?? 0), () => {
          signal?.removeEventListener('abort', onAbort);
          resolve(value);
        });
        const onAbort = (): void => (stop(), aborted());
        signal?.addEventListener('abort', onAbort, { once: true });
      });
    const setTimeoutNow = Object.assign(setTimer, { [promisify.custom]: wait });
    const clockwork = {
      setTimeout: setTimeoutNow,
      setInterval: (fn: Callback, ms?: unknown, ...args: unknown[]) =>
        this.handle(this.add(ms, () => fn(...args), true)),
      setImmediate: (fn: Callback, ...args: unknown[]) => setTimer(fn, 0, ...args),
      clearTimeout: clear,
      clearInterval: clear,
      clearImmediate: clear,
    };
    const undo = [
      replace(globalThis, clockwork),
      replace(timers, clockwork),
      replace(promises, {
        setTimeout: wait,
        setImmediate: <T>(value: T, options?: { signal?: AbortSignal }) => wait(0, value, options),
        setInterval: async function* (ms: number, value: unknown, options?: { signal?: AbortSignal }) {
          for (;;) yield await wait(Math.max(1, ms), value, options);
        },
      }),
      replace(Date, { now: () => this.nowMs }),
      replace(performance, { now: () => this.nowMs }),
      replace(AbortSignal, {
        timeout: (ms: number) => {
          const controller = new AbortController();
          const error = new DOMException('The operation was aborted due to timeout', 'TimeoutError');
          this.add(ms, () => controller.abort(error)).counts = false;
          return controller.signal;
        },
      }),
    ];
    syncBuiltinESMExports();
    return () => {
      for (const restore of undo) restore();
      syncBuiltinESMExports();
    };
  }
}

/** Ends when no test has its own time: the replaced functions are the process's. */
let turn: Promise<void> = Promise.resolve();

/** @returns how to put back what was there */
function replace(target: object, functions: Readonly<Record<string, unknown>>): () => void {
  const before = Object.keys(functions).map(
    (name) => [name, Object.getOwnPropertyDescriptor(target, name)] as const,
  );
  for (const [name, value] of Object.entries(functions)) {
    Object.defineProperty(target, name, { value, configurable: true, writable: true, enumerable: true });
  }
  return () => {
    for (const [name, descriptor] of before) {
      if (descriptor) Object.defineProperty(target, name, descriptor);
      else delete (target as Record<string, unknown>)[name];
    }
  };
}
