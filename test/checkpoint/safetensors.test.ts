// Values of fixtures/reference/checkpoint come from Python's safetensors: test/reference/checkpoint.py.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { writeSafetensors } from '../../src/checkpoint/writer.js';
import { CheckpointError } from '../../src/errors.js';
import { parameter } from '../../src/nn/module.js';
import { empty, liveTensors, MappedFile, scope, tensor, zeros } from '../../src/tensor/index.js';
import { errorOf, temporaryFolder, writeRaw } from './files.js';
import { settledTensors } from '../live.js';

const reference = join(import.meta.dirname, '../../fixtures/reference/checkpoint');

describe('a file that Python wrote', () => {
  test('is read with its names, dtypes, shapes and values', () => {
    using file = new SafetensorsFile(join(reference, 'kinds.safetensors'));
    const values = JSON.parse(fs.readFileSync(join(reference, 'kinds.json'), 'utf8')) as Record<
      string,
      { shape: number[]; values: (number | boolean)[] }
    >;
    expect(file.metadata).toEqual({ format: 'pt', note: 'é' });
    expect([...file.names].sort()).toEqual(Object.keys(values).sort());
    for (const [name, { shape, values: expected }] of Object.entries(values)) {
      scope(() => {
        const read = file.read(name);
        expect(read.shape).toEqual(shape);
        expect(read.dtype).toBe(name === 'scalar' || name === 'empty' ? 'float32' : name);
        expect(Array.from(read.toTypedArray(), Number)).toEqual(expected.map((v) => Number(v)));
      });
    }
  });

  test('is equal, byte for byte, to what the writer makes of the same tensors', async () => {
    const path = join(reference, 'plain.safetensors');
    const copy = join(temporaryFolder(), 'copy.safetensors');
    using file = new SafetensorsFile(path);
    await writeSafetensors(
      copy,
      file.names.map((name) => [name, file.read(name)]),
    );
    expect(fs.readFileSync(copy).equals(fs.readFileSync(path))).toBe(true);
  });
});

describe('copying into a parameter', () => {
  test('converts the dtype and leaves the parameter what it was', () => {
    using file = new SafetensorsFile(join(reference, 'kinds.safetensors'));
    using target = parameter(zeros([3], { dtype: 'bfloat16' }));
    file.copyInto('float32', target);
    expect(target.toTypedArray()[1]).toBe(-3);
    expect(target.requiresGrad).toBe(true);
    expect(target.dtype).toBe('bfloat16');
  });

  test('of another shape names file, tensor and both shapes', () => {
    using file = new SafetensorsFile(join(reference, 'kinds.safetensors'));
    using target = zeros([1, 3]);
    expect(errorOf(() => file.copyInto('float32', target)).message).toBe(
      `${join(reference, 'kinds.safetensors')}: tensor "float32": expected shape [1, 3], received [3]; use the config.json that belongs to these weights`,
    );
  });

  test('of more than a chunk goes through in parts, without a second copy in memory', async () => {
    const path = join(temporaryFolder(), 'large.safetensors');
    const numRows = 40_000;
    {
      using large = empty([numRows, 1024], { dtype: 'float32' }).fill_(0.5);
      large.narrow(0, numRows - 1, 1).fill_(7);
      await writeSafetensors(path, [['large', large]]);
    }
    using file = new SafetensorsFile(path);
    using target = zeros([numRows, 1024], { dtype: 'bfloat16' });
    const before = residentBytes();
    file.copyInto('large', target);
    // 164 MB of file passed through; of its pages hardly any are still held
    expect(residentBytes() - before).toBeLessThan(60e6);
    expect(scope(() => target.eq(0.5).sum().item())).toBe((numRows - 1) * 1024);
    expect(
      scope(() =>
        target
          .select(0, numRows - 1)
          .select(0, 5)
          .item(),
      ),
    ).toBe(7);
  });

  test('leaves no tensors behind', async () => {
    const before = await settledTensors();
    using file = new SafetensorsFile(join(reference, 'kinds.safetensors'));
    using target = zeros([3]);
    for (let i = 0; i < 20; i++) {
      file.copyInto('float32', target);
      file.read('int32').dispose();
    }
    expect(liveTensors()).toBe(before + 1);
  });
});

describe('the mapping', () => {
  test('outlives its file object for as long as a view lives', () => {
    const file = new SafetensorsFile(join(reference, 'kinds.safetensors'));
    using view = file.view('float64');
    file.close();
    expect(Array.from(view.toTypedArray(), Number)).toEqual([1.5, -2.25, 1e300, 0]);
    expect(errorOf(() => file.view('float64')).message).toContain('received one that was closed');
  });

  test('is private: writing to a view leaves the file as it is', () => {
    const path = join(temporaryFolder(), 'a.safetensors');
    fs.copyFileSync(join(reference, 'plain.safetensors'), path);
    using file = new SafetensorsFile(path);
    using view = file.view('a.weight');
    view.fill_(9);
    expect(fs.readFileSync(path).equals(fs.readFileSync(join(reference, 'plain.safetensors')))).toBe(true);
  });

  test('gives unaligned tensors too', () => {
    const header = '{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}'; // 54 bytes: data begin at 62
    const path = writeRaw(join(temporaryFolder(), 'a.safetensors'), header, 8);
    const bytes = fs.readFileSync(path);
    bytes.writeDoubleLE(2.5, bytes.length - 8);
    fs.writeFileSync(path, bytes);
    using file = new SafetensorsFile(path);
    using view = file.view('a');
    expect(view.item()).toBe(2.5);
  });

  test('notices a file that was cut off after it was opened', () => {
    const path = join(temporaryFolder(), 'a.safetensors');
    fs.copyFileSync(join(reference, 'plain.safetensors'), path);
    using file = new SafetensorsFile(path);
    fs.truncateSync(path, 200);
    expect(errorOf(() => file.read('a.weight')).message).toContain(
      'expected 278 bytes, received 200; the file changed while it was being read',
    );
    expect(() => new MappedFile(path, 278)).toThrow('expected 278 bytes, received 200');
  });
});

describe('a file that cannot be used is a CheckpointError', () => {
  const messageFor = (path: string): string => {
    const error = errorOf(() => new SafetensorsFile(path));
    expect(error).toBeInstanceOf(CheckpointError);
    return error.message.replaceAll(path, 'FILE');
  };

  test('when it is missing, a folder or a device', () => {
    const folder = temporaryFolder();
    expect(messageFor(join(folder, 'none'))).toBe(
      'FILE: expected a safetensors file, received no such file; check the path, or download or save it again',
    );
    expect(messageFor(folder)).toBe('FILE: expected a safetensors file, received a folder; check the path');
    expect(messageFor('/dev/zero')).toBe(
      'FILE: expected a safetensors file, received something that is not a file; check the path',
    );
  });

  test('when its header is longer than the file', () => {
    const path = writeRaw(join(temporaryFolder(), 'a.safetensors'), '{}', 0, 77n);
    expect(messageFor(path)).toContain(
      'FILE: expected a header that ends inside the file of 10 bytes, received a header of 77 bytes',
    );
  });

  test('when it lacks the tensor that is asked for', () => {
    using file = new SafetensorsFile(join(reference, 'plain.safetensors'));
    expect(errorOf(() => file.read('d.weight')).message).toContain(
      'tensor "d.weight": expected to find it, received a file of 3 other tensors',
    );
  });

  test('when the engine has no such dtype', () => {
    const header = { a: { dtype: 'F8_E4M3', shape: [4], data_offsets: [0, 4] } };
    using file = new SafetensorsFile(writeRaw(join(temporaryFolder(), 'a.safetensors'), header, 4));
    expect(errorOf(() => file.read('a')).message).toContain(
      'tensor "a": expected a dtype that can be computed with, received F8_E4M3; convert the checkpoint to F32, BF16 or F16',
    );
  });
});

test('tensors of every kind come back as they were written', async () => {
  const path = join(temporaryFolder(), 'a.safetensors');
  const tensors = [
    ['f32', tensor([0.1, 2, 3, 4], [2, 2])],
    ['bf16', tensor([1, 2.5], [2], 'bfloat16')],
    ['turned', tensor([1, 2, 3, 4, 5, 6], [2, 3]).transpose(0, 1)],
    ['i64', tensor([1n, -5n])],
    ['bool', tensor([true, false, true])],
    ['scalar', tensor(3)],
    ['none', zeros([0, 2])],
  ] as const;
  await writeSafetensors(path, tensors);
  using file = new SafetensorsFile(path);
  for (const [name, written] of tensors) {
    using read = file.read(name);
    expect(read.shape).toEqual(written.shape);
    expect(read.dtype).toBe(written.dtype);
    expect(read.toTypedArray()).toEqual(written.toTypedArray());
  }
});

function residentBytes(): number {
  const pages = Number(fs.readFileSync('/proc/self/statm', 'utf8').split(' ')[1]);
  return pages * 4096;
}
