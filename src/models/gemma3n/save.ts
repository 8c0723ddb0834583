// A model to a folder as Hugging Face lays it out; transformers loads it unchanged.

import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import {
  indexFile,
  isWeightFile,
  replaceFolder,
  writeModelFiles,
  type ModelFiles,
} from '../../checkpoint/index.js';
import { PROCESSOR_FILES } from '../../data/processor-files.js';
import { ConfigError } from '../../errors.js';
import { mappedAs } from '../../nn/index.js';
import { adaptersOf } from '../../peft/index.js';
import { decode, z } from '../../schema.js';
import { configText, generationText } from './config-json.js';
import { companionsOf } from './load.js';
import type { Gemma3n } from './model.js';
import { refuseQuantised } from './quantisation.js';
import { namedWeights } from './weights.js';

const schema = z.strictObject({
  /** Weights go into shards of at most so many bytes, with an index; 5 GB by default. */
  maxShardBytes: z.number().min(1).optional(),
  /** Folder whose processor files (tokenizer, chat template, image processor) are copied, for a model whose own folder
   *  has none. */
  processor: z.string().min(1).optional(),
});

export type SaveOptions = z.input<typeof schema>;

/** Writes config.json, generation_config.json, the weights, and the processor files of the folder that the model came
 *  from, whole or not at all: written beside, synced, then put into place. Other files of `folder` are kept; weight
 *  files of before are not. The model must not change until it is done.
 *  @throws {CheckpointError} when the disk is full or the folder cannot be written; what was there is then untouched */
export async function savePretrained(
  model: Gemma3n,
  folder: string,
  options: SaveOptions = {},
): Promise<void> {
  const { maxShardBytes, processor } = decode(schema, options, 'savePretrained');
  refuseQuantised(model, 'savePretrained', 'a model whose weights are numbers, as its files hold them');
  refuseUnmerged(model);
  await replaceFolder(
    folder,
    async (beside) => {
      const { files, weights } = modelFiles(model);
      const copied = processor === undefined ? [] : await processorFiles(processor);
      const options = maxShardBytes === undefined ? {} : { maxShardBytes };
      await writeModelFiles(beside, { files: new Map([...files, ...copied]), weights }, options);
    },
    { isStale: isWeightFile, last: indexFile },
  );
}

/** What a model's folder is written from. The weights are the living ones. A table that is used in another dtype than its
 *  file's is written as it is used, so that what is saved does not depend on where it was. */
export function modelFiles(model: Gemma3n): ModelFiles {
  refuseQuantised(model, 'checkpoint', 'a model whose weights are numbers, as its files hold them');
  const files = new Map(companionsOf(model.config));
  files.set('config.json', encode(configText(model.config, model.outputWeight.dtype)));
  if (!files.has('generation_config.json')) {
    files.set('generation_config.json', encode(generationText(model.config)));
  }
  const weights = Array.from(namedWeights(model), ([name, tensor]) => ({
    name,
    tensor,
    dtype: mappedAs(tensor) ?? tensor.dtype,
  }));
  return { files, weights };
}

/** A folder that loads as this model computes, or an error: it would lack what the adapters have learnt. */
function refuseUnmerged(model: Gemma3n): void {
  const adapters = adaptersOf(model);
  if (!adapters || adapters.isMerged || adapters.active.length === 0) return;
  throw new ConfigError({
    where: 'savePretrained',
    expected: 'weights that hold all that was learnt',
    received: `adapter '${adapters.active.join("', '")}' beside them`,
    remedy: 'mergeAdapter(model) first, save the adapter alone with saveAdapter, or disableAdapters(model)',
  });
}

async function processorFiles(folder: string): Promise<[string, Uint8Array][]> {
  const names = (await fs.readdir(folder)).filter((name) =>
    (PROCESSOR_FILES as readonly string[]).includes(name),
  );
  return Promise.all(
    names.map(async (name): Promise<[string, Uint8Array]> => [name, await fs.readFile(join(folder, name))]),
  );
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
