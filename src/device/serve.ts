// The worker's side of a device thread: does the host's calls in order and answers each.

import { type MessagePort, parentPort } from 'node:worker_threads';
import { SluiceError } from '../errors.js';
import { flatten } from './sent-error.js';
import type { Answer, Request } from './thread.js';

type Api = Record<string, (...args: never[]) => unknown>;
type Call = Extract<Request, { method: string }>;

/** Serves `api` to the host that started this worker. A method may return a promise; the next call waits for it. Behind
 *  its arguments it gets a signal, aborted when the host cancels the call. */
export function serve(api: Api): void {
  const port = parentPort;
  if (!port)
    throw new SluiceError('serve: expected to run in a worker thread; start it through DeviceThread');
  const open = new Map<number, AbortController>();
  let last: Promise<void> = Promise.resolve();
  port.on('message', (request: Request) => {
    if ('cancel' in request) return open.get(request.cancel)?.abort();
    const controller = new AbortController();
    open.set(request.id, controller);
    last = last.then(async () => {
      post(port, await answer(api, request, controller.signal));
      open.delete(request.id);
    });
  });
}

async function answer(api: Api, { id, method, args }: Call, signal: AbortSignal): Promise<Answer> {
  try {
    const called = Object.hasOwn(api, method) ? api[method] : undefined;
    if (!called) throw new SluiceError(`device thread: no method '${method}'`);
    return { id, value: await called.call(api, ...([...args, signal] as never[])) };
  } catch (error) {
    return { id, error: flatten(error) };
  }
}

/** A value that cannot cross must not leave the host waiting. */
function post(port: MessagePort, answer: Answer): void {
  try {
    port.postMessage(answer);
  } catch (error) {
    port.postMessage({ id: answer.id, error: flatten(error) } satisfies Answer);
  }
}
