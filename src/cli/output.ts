// Stdout during a run. Under `--json` it is for the run's lines alone: what anybody else prints, such as a pipeline
// file's own console.log, goes to stderr. When nobody reads it any more, or the disk behind it is full, the run stops.

import { SluiceError, messageOf } from '../errors.js';

export interface Output extends Disposable {
  /** Writes to stdout. */
  write(text: string): void;
  /** Aborted when stdout takes no more. */
  readonly signal: AbortSignal;
}

/** Takes stdout over until it is disposed of.
 *  @param alone others' output goes to stderr meanwhile
 *  @param remedy what to do where stdout takes no more */
export function takeOutput({
  alone,
  remedy = 'the run was stopped; continue it with --resume',
}: {
  readonly alone: boolean;
  readonly remedy?: string;
}): Output {
  const { stdout, stderr } = process;
  const write = stdout.write.bind(stdout);
  const controller = new AbortController();
  // They stay: the last writes of a process may fail too.
  stdout.on('error', (error) => controller.abort(closed(error, remedy)));
  stderr.on('error', () => undefined);
  if (alone) stdout.write = stderr.write.bind(stderr);
  return {
    write: (text) => void write(text),
    signal: controller.signal,
    [Symbol.dispose]: () => {
      if (alone) stdout.write = write;
    },
  };
}

function closed(cause: unknown, remedy: string): SluiceError {
  return new SluiceError(
    {
      where: 'stdout',
      expected: 'somebody who reads it, or room on its disk',
      received: messageOf(cause),
      remedy,
    },
    { cause },
  );
}
