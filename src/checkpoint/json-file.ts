// Small files of JSON that stand beside weights: untrusted, and bounded.

import * as fs from 'node:fs';
import { readFault } from './faults.js';
import { parseStrictJson } from './strict-json.js';

/** A small file, parsed by `parseStrictJson`. @param what it is, for the error
 *  @throws {CheckpointError} when it cannot be read, is too large, or is no such JSON */
export function readStrictJson(path: string, what: string, mostBytes: number): unknown {
  try {
    const { size } = fs.statSync(path);
    if (size > mostBytes) throw new Error(`${size} bytes, where ${mostBytes} are more than enough`);
    return parseStrictJson(fs.readFileSync(path, 'utf8'));
  } catch (cause) {
    throw readFault(path, what, cause);
  }
}
