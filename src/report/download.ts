// How far the download of a model is, for people: a moving line on a terminal, now and then a line elsewhere.

import type { DownloadProgress } from '../hub/index.js';

/** Milliseconds between lines, on a terminal and elsewhere. */
const EVERY_MS = { terminal: 100, file: 10_000 };

/** @param out where it is shown: process.stderr, since stdout may be a program's */
export function downloadProgress(
  out: NodeJS.WriteStream = process.stderr,
): (progress: DownloadProgress) => void {
  const begun = performance.now();
  let last = -Infinity;
  let firstBytes: number | undefined;
  return ({ repository, file, doneBytes, totalBytes }) => {
    const now = performance.now();
    const isDone = doneBytes >= totalBytes;
    firstBytes ??= doneBytes;
    if (!isDone && now - last < (out.isTTY ? EVERY_MS.terminal : EVERY_MS.file)) return;
    last = now;
    const rate = (doneBytes - firstBytes) / Math.max(1e-3, (now - begun) / 1000);
    const line = `${repository}: ${megabytes(doneBytes)} of ${megabytes(totalBytes)} MB, ${megabytes(rate)} MB/s`;
    if (!out.isTTY) out.write(`${line}\n`);
    else out.write(`\r\x1b[2K${line}${isDone ? '\n' : `  ${file}`}`);
  };
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
