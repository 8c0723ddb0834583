// Which weights a model was loaded with, told by a few numbers of each: an adapter's folder holds it, so that an adapter is
// not put beside weights that it was not trained with.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { checkpointFault, openWeights, quote, readStrictJson } from '../../checkpoint/index.js';
import { decode, z } from '../../schema.js';
import { cat, scope, type Tensor } from '../../tensor/index.js';
import { baseOf, type BaseModel } from './base-model.js';
import type { Gemma3nConfig } from './config.js';
import type { Gemma3n } from './model.js';
import { canonicalName, deadWeightShapes } from './weights.js';

/** Of an adapter's folder. PEFT does not read it. */
export const BASE_FILE = 'base.json';
const MOST_BYTES = 2 ** 16;
/** Numbers at either end of a tensor that are looked at. */
const ENDS = 64;
const LAYERS = /^model\.(?:language_model\.)?(layers\..+)$/;

const schema = z.looseObject({
  model: z.string().nullish(),
  fingerprint: z.string().regex(/^[0-9a-f]{32}$/, 'expected 32 hexadecimal digits'),
});

const ofModels = new WeakMap<Gemma3n, string>();

/** Sets down what a model was loaded with. @param folder of its weights */
export function rememberWeights(model: Gemma3n, folder: string): void {
  ofModels.set(model, fingerprint(folder, model.config));
}

/** The first and last numbers of every weight of the text tower's layers, rounded to bfloat16, hashed by their names: the same
 *  for a copy in another dtype, in other shards, or of the text tower alone.
 *  @returns 32 hexadecimal digits of a SHA-256 */
export function fingerprint(folder: string, config: Gemma3nConfig): string {
  const weights = openWeights(folder);
  try {
    const dead = deadWeightShapes(config);
    const names = weights.names.flatMap((stored) => {
      const name = canonicalName(stored, config.kind);
      const [, inner] = LAYERS.exec(name) ?? [];
      return inner === undefined || dead.has(name) ? [] : [{ inner, stored }];
    });
    const hash = createHash('sha256');
    for (const { inner, stored } of names.sort((a, b) => (a.inner < b.inner ? -1 : 1))) {
      hash.update(`${inner} ${weights.entry(stored).shape.join('x')}\n`);
      hash.update(scope(() => endsOf(weights.view(stored))));
    }
    return hash.digest('hex').slice(0, 32);
  } finally {
    weights.close();
  }
}

function endsOf(tensor: Tensor): Uint8Array {
  const flat = tensor.reshape([-1]);
  const count = Math.min(ENDS, tensor.numel);
  const ends = cat([flat.narrow(0, 0, count), flat.narrow(0, tensor.numel - count, count)], 0);
  const numbers = ends.to('bfloat16').toTypedArray();
  return new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
}

/** The file beside an adapter's; undefined where the model's weights were drawn. */
export function baseText(model: Gemma3n): string | undefined {
  const found = ofModels.get(model);
  return found && `${JSON.stringify({ model: baseOf(model)?.path, fingerprint: found }, undefined, 2)}\n`;
}

/** @returns whether an adapter was trained with the model's weights; undefined where one of the two does not tell
 *  @throws {CheckpointError} when it was trained with others */
export function checkWeights(model: Gemma3n, folder: string): true | undefined {
  const [here, stored] = [ofModels.get(model), readBase(folder)];
  if (here === undefined || stored === undefined) return undefined;
  if (stored.fingerprint === here) return true;
  const path = join(folder, BASE_FILE);
  throw checkpointFault(path, undefined, {
    expected: `the model that the adapter was trained with, ${named(stored.model)}, weights ${stored.fingerprint}`,
    received: `${named(baseOf(model)?.path)}, weights ${here}`,
    remedy: `load the adapter into that model; delete ${path} to load it into this one all the same`,
  });
}

function readBase(folder: string): z.output<typeof schema> | undefined {
  const path = join(folder, BASE_FILE);
  if (!existsSync(path)) return undefined;
  return decode(schema, readStrictJson(path, "what an adapter's base is, in JSON", MOST_BYTES), path);
}

function named(path: BaseModel['path'] | null | undefined): string {
  return path == null ? 'one without a name' : quote(path);
}
