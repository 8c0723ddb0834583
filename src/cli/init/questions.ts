// Questions on a terminal, a line each.

import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { ConfigError } from '../../errors.js';

/** Asks for one value. @param check throws what is wrong with an answer: it is shown, and asked again */
export type Ask = <T>(question: string, check: (answer: string) => T, suggestion?: string) => Promise<T>;

/** Asks on a terminal. Lines that come before their question, as when several are pasted, answer the next ones.
 *  @param input and output stdin and stderr: stdout is for what a command makes
 *  @throws {ConfigError} when the input ends, and the signal's reason when it is aborted */
export function askOnTerminal(
  signal: AbortSignal,
  input: Readable = process.stdin,
  output: Writable = process.stderr,
): Ask & Disposable {
  const lines = createInterface({ input, output });
  const answers = lines[Symbol.asyncIterator]();
  const leave = (): void => lines.close();
  signal.addEventListener('abort', leave, { once: true });
  const ask: Ask = async (question, check, suggestion) => {
    for (;;) {
      signal.throwIfAborted();
      output.write(`${question}${suggestion === undefined ? '' : ` [${suggestion}]`}: `);
      const line = await answers.next();
      signal.throwIfAborted();
      if (line.done) throw ended(question);
      try {
        return check(line.value.trim() || (suggestion ?? ''));
      } catch (error) {
        output.write(`  ${error instanceof Error ? error.message : String(error)}\n`);
      }
    }
  };
  const end = (): void => {
    signal.removeEventListener('abort', leave);
    lines.close();
  };
  return Object.assign(ask, { [Symbol.dispose]: end });
}

function ended(question: string): ConfigError {
  return new ConfigError({
    where: question,
    expected: 'an answer',
    received: 'the end of the input',
    remedy: 'answer, or give flags: pipe init --help',
  });
}
