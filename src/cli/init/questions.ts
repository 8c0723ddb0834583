// Questions on a terminal, a line each.

import { createInterface } from 'node:readline/promises';

/** Asks for one value. @param check throws what is wrong with an answer: it is shown, and asked again */
export type Ask = <T>(question: string, check: (answer: string) => T, suggestion?: string) => Promise<T>;

/** Asks on stdin and stderr: stdout is for what a command makes.
 *  @throws the signal's reason when it is aborted */
export function askOnTerminal(signal: AbortSignal): Ask {
  return async (question, check, suggestion) => {
    const lines = createInterface({ input: process.stdin, output: process.stderr });
    try {
      for (;;) {
        const prompt = `${question}${suggestion === undefined ? '' : ` [${suggestion}]`}: `;
        const answer = (await lines.question(prompt, { signal })).trim() || (suggestion ?? '');
        try {
          return check(answer);
        } catch (error) {
          process.stderr.write(`  ${error instanceof Error ? error.message : String(error)}\n`);
        }
      }
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    } finally {
      lines.close();
    }
  };
}
