// `--json`: one JSON object a line on stdout, and nothing else there.

import type { Sink } from '../train/sink.js';

/** Writes every event but answers as a line of JSON. @param write to stdout by default */
export function jsonLines(write: (line: string) => void = (line) => process.stdout.write(line)): Sink {
  return {
    name: 'json',
    onEvent: (event) => {
      if (event.event !== 'answers') write(`${JSON.stringify(event)}\n`);
    },
  };
}
