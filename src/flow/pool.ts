// A pool of permits weighed in bytes. A run has two.
//
// The host pool is the bound over every queue, stash, open batch and staging buffer: a sample holds its permit from
// admission until it is settled, also while the consumer has it, since arrays that were transferred to the device's
// thread are still memory of this process until the step is done with them. The device pool bounds the part of that
// which has been handed to the consumer, and with it the copies that the consumer makes of it.

import { FlowError } from '../errors.js';

interface Waiter {
  readonly bytes: number;
  readonly wake: () => void;
}

export class Pool {
  /** Bytes that are out. */
  used = 0;
  /** The most bytes that were out at once, an item that waits at the gate included. */
  peak = 0;
  #capacity: number;
  private staged = 0;
  private waiters: Waiter[] = [];

  /** @param capacity bytes, a positive integer
   *  @param option what the capacity is called where it is given, for the message
   *  @throws {FlowError} when it is none */
  constructor(
    capacity: number,
    option = 'poolBytes',
    /** The most that `grow` makes of the capacity. */
    readonly most = capacity,
  ) {
    this.#capacity = Math.min(capacity, most);
    if (Number.isSafeInteger(capacity) && capacity > 0 && Number.isSafeInteger(most) && most > 0) return;
    throw new FlowError({
      where: option,
      expected: 'a positive whole number of bytes',
      received: String(most > 0 ? capacity : most),
      remedy: 'give the memory that samples on their way may take, such as 256 * 2 ** 20',
    });
  }

  /** Bytes. */
  get capacity(): number {
    return this.#capacity;
  }

  /** Whether anybody waits for room. */
  get isWaitedFor(): boolean {
    return this.waiters.length > 0;
  }

  /** Makes the capacity greater, and wakes whoever waits.
   *  @param atLeast bytes that must have room then
   *  @returns false when it cannot become greater, or not great enough */
  grow(factor: number, atLeast = 0): boolean {
    if (this.#capacity >= this.most || atLeast > this.most) return false;
    this.#capacity = Math.min(this.most, Math.max(Math.ceil(this.#capacity * factor), atLeast));
    this.nudge();
    return true;
  }

  /** Whether `bytes` may be taken now. More than the capacity fits only into an empty pool: alone. */
  fits(bytes: number): boolean {
    return this.used === 0 || this.used + bytes <= this.capacity;
  }

  /** Takes without asking; ask `fits` first. */
  take(bytes: number): void {
    this.used += bytes;
    if (this.used + this.staged > this.peak) this.peak = this.used + this.staged;
  }

  /** Gives back, and wakes whoever waits for that much. */
  give(bytes: number): void {
    this.used -= bytes;
    if (this.waiters.length > 0) this.wake((waiter) => this.fits(waiter.bytes));
  }

  /** Counts an item that is in memory and waits for room, towards the peak only; 0 ends it. */
  stage(bytes: number): void {
    this.staged = bytes;
    this.take(0);
  }

  /** Resolves when `bytes` may fit, or on `nudge`: ask `fits` again then. */
  room(bytes: number): Promise<void> {
    return new Promise((wake) => this.waiters.push({ bytes, wake }));
  }

  /** Wakes everyone who waits, to look again. */
  nudge(): void {
    if (this.waiters.length > 0) this.wake(() => true);
  }

  private wake(due: (waiter: Waiter) => boolean): void {
    const woken = this.waiters.filter(due);
    if (woken.length === 0) return;
    this.waiters = this.waiters.filter((waiter) => !woken.includes(waiter));
    for (const waiter of woken) waiter.wake();
  }
}
