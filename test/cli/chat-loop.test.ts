// The loop of a conversation, on an input of its own in place of stdin.

import { PassThrough } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { queryObjects } from 'node:v8';
import { afterEach, expect, it, vi } from 'vitest';
import { chatLoop } from '../../src/cli/chat-loop.js';
import type { Chat } from '../../src/generate/index.js';

const stdin = Object.getOwnPropertyDescriptor(process, 'stdin')!;
afterEach(() => {
  Object.defineProperty(process, 'stdin', stdin);
  vi.restoreAllMocks();
});

function begin(signal = new AbortController().signal) {
  const input = new PassThrough();
  Object.defineProperty(process, 'stdin', { value: input, configurable: true });
  vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  const chat = { reset: vi.fn(), dispose: vi.fn() };
  const ended = chatLoop({
    chat: chat as unknown as Chat,
    options: { maxNewTokens: 1 },
    writer: {} as never,
    signal,
  });
  return { input, chat, ended };
}

/** Promises that are alive in this process. */
const promises = () => queryObjects(Promise, { format: 'count' });

it('a conversation keeps nothing of the lines that it has read', async () => {
  const { input, chat, ended } = begin();
  const say = async (lines: number, before: number) => {
    input.write('/reset\n'.repeat(lines));
    await vi.waitFor(() => expect(chat.reset).toHaveBeenCalledTimes(before + lines));
    await delay(1);
  };
  await say(50, 0);
  const before = promises();
  await say(1000, 50);
  expect(promises() - before).toBeLessThan(100);
  input.end();
  await ended;
  expect(chat.dispose).toHaveBeenCalledOnce();
});

it('a conversation is left with the reason of its signal while it waits for a line', async () => {
  const leaving = new AbortController();
  const { chat, ended } = begin(leaving.signal);
  await delay(5);
  leaving.abort(new Error('enough'));
  await expect(ended).rejects.toThrow('enough');
  expect(chat.dispose).toHaveBeenCalledOnce();
  const gone = begin(AbortSignal.abort(new Error('before')));
  await expect(gone.ended).rejects.toThrow('before');
});
