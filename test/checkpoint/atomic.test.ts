import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  removeFolder,
  replaceFile,
  replaceFolder,
  tidyLeftovers,
  writeAll,
} from '../../src/checkpoint/atomic.js';
import { writeSafetensors, writeShards } from '../../src/checkpoint/writer.js';
import { CheckpointError } from '../../src/errors.js';
import { zeros } from '../../src/tensor/index.js';
import { temporaryFolder } from './files.js';

const fillWith =
  (files: Record<string, string>) =>
  async (folder: string): Promise<void> => {
    for (const [name, text] of Object.entries(files)) fs.writeFileSync(join(folder, name), text);
  };

/** Names and texts of a folder's files. */
function contents(folder: string): Record<string, string> {
  return Object.fromEntries(
    fs.readdirSync(folder).map((name) => [name, fs.readFileSync(join(folder, name), 'utf8')]),
  );
}

/** A process id that no process has. */
const deadPid = spawnSync('true').pid;

describe('replacing a folder', () => {
  test('makes it, with its parents, when it is not there', async () => {
    const folder = join(temporaryFolder(), 'runs', 'one');
    await replaceFolder(folder, fillWith({ a: '1' }));
    expect(contents(folder)).toEqual({ a: '1' });
    expect(fs.readdirSync(join(folder, '..'))).toEqual(['one']);
  });

  test('fills one that is empty', async () => {
    const folder = temporaryFolder();
    await replaceFolder(folder, fillWith({ a: '1' }));
    expect(contents(folder)).toEqual({ a: '1' });
  });

  test('keeps entries of before that it does not write, but no stale ones', async () => {
    const folder = join(temporaryFolder(), 'model');
    await replaceFolder(folder, fillWith({ a: '1', shard: 'old', notes: 'mine' }));
    fs.mkdirSync(join(folder, 'more'));
    await replaceFolder(folder, fillWith({ a: '2' }), { isStale: (name) => name === 'shard' });
    expect(fs.readdirSync(folder).sort()).toEqual(['a', 'more', 'notes']);
    expect(fs.readFileSync(join(folder, 'a'), 'utf8')).toBe('2');
    expect(fs.readdirSync(join(folder, '..'))).toEqual(['model']);
  });

  test('through a link replaces what the link leads to', async () => {
    const root = temporaryFolder();
    fs.mkdirSync(join(root, 'real'));
    fs.writeFileSync(join(root, 'real', 'b'), '0');
    fs.symlinkSync('real', join(root, 'link'));
    await replaceFolder(join(root, 'link'), fillWith({ a: '1' }));
    expect(fs.lstatSync(join(root, 'link')).isSymbolicLink()).toBe(true);
    expect(contents(join(root, 'real'))).toEqual({ a: '1', b: '0' });
  });

  test('leaves the folder of before as it was when filling fails', async () => {
    const folder = join(temporaryFolder(), 'model');
    await replaceFolder(folder, fillWith({ a: '1' }));
    const filling = replaceFolder(folder, async (beside) => {
      fs.writeFileSync(join(beside, 'a'), 'half');
      throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    });
    await expect(filling).rejects.toBeInstanceOf(CheckpointError);
    await expect(filling).rejects.toThrow(
      `${folder}: expected to write the checkpoint, received ENOSPC: no space left on device, write; free space on that disk or choose another folder; earlier checkpoints are untouched`,
    );
    expect(contents(folder)).toEqual({ a: '1' });
    expect(fs.readdirSync(join(folder, '..'))).toEqual(['model']);
  });

  test('below a file or where nobody may write says so', async () => {
    const file = join(temporaryFolder(), 'file');
    fs.writeFileSync(file, '');
    await expect(replaceFolder(join(file, 'model'), fillWith({}))).rejects.toThrow(
      /file\/model: expected to write the checkpoint, received E\w+: .*earlier checkpoints are untouched/,
    );
    await expect(replaceFolder('/proc/model', fillWith({}))).rejects.toThrow(
      /^\/proc\/model: expected to write the checkpoint, received ENOENT: .*; check the path or choose another/,
    );
  });
});

describe('what a crash left', () => {
  test('half-written is removed by the next save, unless its process still runs', async () => {
    const root = temporaryFolder();
    fs.mkdirSync(join(root, `.model.partial-${deadPid}-00c0ffee`));
    fs.mkdirSync(join(root, `.model.partial-${process.ppid}-00c0ffee`));
    await replaceFolder(join(root, 'model'), fillWith({ a: '1' }));
    expect(fs.readdirSync(root).sort()).toEqual([`.model.partial-${process.ppid}-00c0ffee`, 'model']);
  });

  test('half-exchanged is put back, or gives up the entries that the new folder lacks', async () => {
    const root = temporaryFolder();
    const old = join(root, `.model.replaced-${deadPid}-00c0ffee`);
    fs.mkdirSync(old);
    fs.writeFileSync(join(old, 'a'), '1');
    await tidyLeftovers(root);
    expect(contents(join(root, 'model'))).toEqual({ a: '1' });

    fs.mkdirSync(old);
    fs.writeFileSync(join(old, 'a'), '0');
    fs.writeFileSync(join(old, 'b'), '0');
    await tidyLeftovers(root);
    expect(contents(join(root, 'model'))).toEqual({ a: '1', b: '0' });
    expect(fs.readdirSync(root)).toEqual(['model']);
  });
});

test('a mount point is filled inside, its last file last', async ({ skip }) => {
  const folder = temporaryFolder();
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=300k', 'tmpfs', folder]).status === 0;
  if (!mounted) skip('this machine does not let us mount a tmpfs');
  try {
    await replaceFolder(folder, fillWith({ a: '1', shard: '1', last: '1' }));
    fs.writeFileSync(join(folder, 'notes'), 'mine');
    await replaceFolder(folder, fillWith({ a: '2', last: '2' }), {
      isStale: (name) => name === 'shard',
      last: 'last',
    });
    expect(contents(folder)).toEqual({ a: '2', last: '2', notes: 'mine' });

    const large = zeros([200_000]);
    await expect(writeShards(folder, [['a', large]])).rejects.toThrow(
      /expected 800000 free bytes to write the checkpoint, received \d+ on that disk; free space on that disk/,
    );
    const filling = replaceFolder(folder, async (inside) =>
      fs.writeFileSync(join(inside, 'a'), new Uint8Array(800_000)),
    );
    await expect(filling).rejects.toThrow(/received ENOSPC: no space left on device, write; free space/);
    expect(contents(folder)).toEqual({ a: '2', last: '2', notes: 'mine' });
  } finally {
    spawnSync('umount', [folder]);
  }
});

describe('replacing a file', () => {
  test('leaves the file of before when writing fails', async () => {
    const path = join(temporaryFolder(), 'a.safetensors');
    await writeSafetensors(path, [['a', zeros([2])]]);
    const before = fs.readFileSync(path);
    await expect(
      replaceFile(path, async () => {
        const full = await fs.promises.open('/dev/full', 'w');
        await writeAll(full, new Uint8Array(10)).finally(() => full.close());
      }),
    ).rejects.toThrow(`${path}: expected to write the checkpoint, received ENOSPC: no space left on device`);
    expect(fs.readFileSync(path).equals(before)).toBe(true);
    expect(fs.readdirSync(join(path, '..'))).toEqual(['a.safetensors']);
  });

  test('in a folder that is not there says so', async () => {
    await expect(writeSafetensors(join(temporaryFolder(), 'none', 'a'), [])).rejects.toThrow(
      /none\/a: expected to write the checkpoint, received ENOENT: .*; check the path or choose another folder/,
    );
  });
});

test('a folder that is removed is gone, and its neighbours are not', async () => {
  const root = temporaryFolder();
  fs.mkdirSync(join(root, 'a', 'b'), { recursive: true });
  fs.mkdirSync(join(root, 'c'));
  await removeFolder(join(root, 'a'));
  expect(fs.readdirSync(root)).toEqual(['c']);
});
