// SIGINT and SIGTERM: the first asks a command to finish what it must, a second SIGINT leaves at once.
// npx hands SIGTERM to the shell between itself and us, and that shell dies without passing it on; so under npx the
// loss of our parent counts as SIGTERM too.

import { SluiceError } from '../errors.js';

const parentWatchMs = 250;

/** The command was stopped by a signal, and left things in order. */
export class Stopped extends SluiceError {
  override readonly code = 'STOPPED';
  readonly exitCode: 130 | 143;

  constructor(signal: 'SIGINT' | 'SIGTERM') {
    super(`Stopped by ${signal}`);
    this.exitCode = signal === 'SIGINT' ? 130 : 143;
  }
}

/** A signal that aborts, with a `Stopped` as its reason, at the first SIGINT or SIGTERM. Rethrow that reason to exit
 *  with its code. Dispose to give the signals their usual effect back. */
export function stopOnSignals(): { readonly signal: AbortSignal } & Disposable {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted && name === 'SIGINT') process.exit(130);
    controller.abort(new Stopped(name as 'SIGINT' | 'SIGTERM'));
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  const parent = process.ppid;
  const watch = setInterval(() => process.ppid !== parent && onSignal('SIGTERM'), parentWatchMs).unref();
  if (process.env.npm_command !== 'exec') clearInterval(watch);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      clearInterval(watch);
      process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
    },
  };
}
