import { describe, expect, it } from 'vitest';
import { Pool } from '../../src/flow/index.js';

describe('Pool', () => {
  it('has room until its bytes are out', () => {
    const pool = new Pool(100);
    pool.take(60);
    expect(pool.fits(40)).toBe(true);
    expect(pool.fits(41)).toBe(false);
  });

  it('lets in more than its capacity only when it is empty', () => {
    const pool = new Pool(100);
    expect(pool.fits(500)).toBe(true);
    pool.take(1);
    expect(pool.fits(500)).toBe(false);
  });

  it('wakes a waiter when what it waits for fits, and not before', async () => {
    const pool = new Pool(100);
    pool.take(100);
    let awake = false;
    const room = pool.room(50).then(() => (awake = true));
    pool.give(20);
    await Promise.resolve();
    expect(awake).toBe(false);
    pool.give(30);
    await room;
    expect(awake).toBe(true);
  });

  it('wakes everyone on a nudge', async () => {
    const pool = new Pool(100);
    pool.take(100);
    const rooms = [pool.room(50), pool.room(100)];
    pool.nudge();
    await Promise.all(rooms);
    expect(pool.used).toBe(100);
  });

  it('counts an item that waits at the gate in the peak', () => {
    const pool = new Pool(100);
    pool.take(80);
    pool.stage(40);
    pool.stage(0);
    expect(pool.peak).toBe(120);
    expect(pool.used).toBe(80);
  });

  it.each([0, -1, 1.5, NaN, Infinity])('refuses a capacity of %s', (capacity) => {
    expect(() => new Pool(capacity)).toThrow(
      `poolBytes: expected a positive whole number of bytes, received ${capacity}; give the memory that samples on their way may take, such as 256 * 2 ** 20`,
    );
  });
});
