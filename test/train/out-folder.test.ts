import { mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { makeOutFolder, putAside } from '../../src/train/out-folder.js';
import { temporaryFolder } from './job.js';

describe("the run's folder", () => {
  it('is made with its parents, once or again', () => {
    const folder = join(temporaryFolder(), 'a', 'b');
    makeOutFolder(folder);
    makeOutFolder(folder);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('puts aside what is there, each time into a folder of its own', () => {
    const folder = temporaryFolder();
    expect(putAside(folder, ['metrics.jsonl', 'checkpoint-3'])).toBeUndefined();
    for (const text of ['first', 'second']) {
      writeFileSync(join(folder, 'metrics.jsonl'), text);
      mkdirSync(join(folder, 'checkpoint-3'));
      putAside(folder, ['metrics.jsonl', 'checkpoint-3', 'report.html']);
    }
    expect(readdirSync(folder).sort()).toEqual(['earlier-1', 'earlier-2']);
    expect(readFileSync(join(folder, 'earlier-2', 'metrics.jsonl'), 'utf8')).toBe('second');
    expect(readdirSync(join(folder, 'earlier-1')).sort()).toEqual(['checkpoint-3', 'metrics.jsonl']);
  });

  it('leaves links where they are: they lead to where somebody wants the file', () => {
    const folder = temporaryFolder();
    symlinkSync('/dev/null', join(folder, 'metrics.jsonl'));
    expect(putAside(folder, ['metrics.jsonl'])).toBeUndefined();
  });
});
