import { PassThrough } from 'node:stream';
import { expect, it } from 'vitest';
import { streamLog } from '../../src/native/progress.js';

it('a terminal has one moving line, which other lines do not overwrite', () => {
  const out = Object.assign(new PassThrough(), { isTTY: true });
  const log = streamLog(out);
  log.progress('downloading torch', 0, undefined, 'bytes');
  log.progress('downloading torch', 250e6, 1.5e9, 'bytes');
  log.line('waiting');
  log.progress('compiled', 2, 2, 'files');
  expect(String(out.read())).toBe(
    '\r\x1b[K  downloading torch: 0 MB\r\x1b[K  downloading torch: 250 MB of 1.50 GB\nwaiting\n' +
      '\r\x1b[K  compiled: 2 of 2 files\n',
  );
});

it('a file gets a line a tenth', () => {
  const out = new PassThrough();
  const log = streamLog(out);
  for (let done = 0; done <= 100; done++) log.progress('unpacking', done * 1e6, 100e6, 'bytes');
  const lines = String(out.read()).trimEnd().split('\n');
  expect(lines).toHaveLength(11);
  expect(lines.at(-1)).toBe('  unpacking: 100 MB of 100 MB');
});
