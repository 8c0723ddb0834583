// Small files for the tests of checkpoints: temporary folders, and safetensors files that are wrong on purpose.

import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** A folder that is removed when the test ends. */
export function temporaryFolder(): string {
  const folder = fs.mkdtempSync(join(tmpdir(), 'sluice-checkpoint-'));
  onTestFinished(() => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** The bytes of a file with this header, given as JSON or as its text, and so many bytes of data. */
export function fileBytes(header: unknown, dataBytes: number, headerLength?: bigint): Uint8Array {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, headerLength ?? BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

/** Writes such a file. */
export function writeRaw(path: string, header: unknown, dataBytes: number, headerLength?: bigint): string {
  fs.writeFileSync(path, fileBytes(header, dataBytes, headerLength));
  return path;
}

/** The error that `work` throws. */
export function errorOf(work: () => unknown): Error {
  try {
    work();
  } catch (error) {
    return error as Error;
  }
  throw new Error('expected an error, received none');
}
