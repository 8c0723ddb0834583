// Copies of recorded checkpoints, changed for the tests of loading.

import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { SafetensorsFile, writeSafetensors, type NamedTensor } from '../../src/checkpoint/index.js';
import type { Tensor } from '../../src/tensor/index.js';
import { referencePath } from './text-reference.js';

/** A folder that is removed when the test ends. */
export function temporaryFolder(): string {
  const folder = fs.mkdtempSync(join(tmpdir(), 'sluice-load-'));
  onTestFinished(() => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** The tensors of a recorded checkpoint. */
export function tensorsOf(folder: string): Map<string, Tensor> {
  using file = new SafetensorsFile(join(folder, 'model.safetensors'));
  return new Map(file.names.map((name) => [name, file.read(name)]));
}

/** A copy of fixtures/reference/NAME whose tensors and configuration were changed. */
export async function changedCopy(
  name: string,
  change: (tensors: Map<string, Tensor>) => Iterable<NamedTensor> | void,
  changeConfig: (config: Record<string, unknown>) => void = () => {},
): Promise<string> {
  const folder = temporaryFolder();
  const tensors = tensorsOf(referencePath(name));
  await writeSafetensors(join(folder, 'model.safetensors'), change(tensors) ?? tensors);
  const config = JSON.parse(fs.readFileSync(join(referencePath(name), 'config.json'), 'utf8')) as Record<
    string,
    unknown
  >;
  changeConfig(config);
  fs.writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  return folder;
}
