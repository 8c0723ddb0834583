// The worker's side of a device thread: does the host's calls in order and answers each.

import { parentPort } from 'node:worker_threads';
import { SluiceError } from '../errors.js';
import type { Answer, Call } from './thread.js';

/** Serves `api` to the host that started this worker. A method may return a promise; the next call waits for it. */
export function serve(api: Record<string, (...args: never[]) => unknown>): void {
  const port = parentPort;
  if (!port)
    throw new SluiceError('serve: expected to run in a worker thread; start it through DeviceThread');
  let last: Promise<void> = Promise.resolve();
  port.on('message', (call: Call) => {
    last = last.then(async () => {
      port.postMessage(await answer(api, call));
    });
  });
}

async function answer(api: Record<string, (...args: never[]) => unknown>, call: Call): Promise<Answer> {
  try {
    const method = api[call.method];
    if (!method) throw new SluiceError(`device thread: no method '${call.method}'`);
    return { id: call.id, value: await method(...(call.args as never[])) };
  } catch (error) {
    const { name, message, stack } = error instanceof Error ? error : new Error(String(error));
    const code = (error as { code?: unknown } | null)?.code;
    return {
      id: call.id,
      error: { name, message, code: typeof code === 'string' ? code : 'UNKNOWN', ...(stack && { stack }) },
    };
  }
}
