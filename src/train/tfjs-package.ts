// The TensorFlow.js that is installed, the fastest first: an optional peer, looked for when a pipeline has such a model.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ConfigError, messageOf } from '../errors.js';

// The types of an optional peer: anything, to whoever has not installed it and does not use it.
/* eslint-disable @typescript-eslint/ban-ts-comment */
/** TensorFlow.js.
 *  @ts-ignore: where it is not installed */
export type Tfjs = typeof import('@tensorflow/tfjs');
/** @ts-ignore: where it is not installed */
export type TfTensor = import('@tensorflow/tfjs').Tensor;
/** @ts-ignore: where it is not installed */
export type TfVariable = import('@tensorflow/tfjs').Variable;
/** @ts-ignore: where it is not installed */
export type TfShape = import('@tensorflow/tfjs').Shape;
/** @ts-ignore: where it is not installed */
export type TfModel = import('@tensorflow/tfjs').LayersModel;
/* eslint-enable @typescript-eslint/ban-ts-comment */

export const TFJS_PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node', '@tensorflow/tfjs'];

/** Where a package lies: beside this one, else beside the job; undefined where it is not installed. */
export function installedAt(name: string): string | undefined {
  for (const from of [import.meta.url, pathToFileURL(join(process.cwd(), 'package.json'))]) {
    try {
      return createRequire(from).resolve(name);
    } catch {
      continue;
    }
  }
  return undefined;
}

/** The first of the packages that is installed.
 *  @throws {ConfigError} when none is */
export function tfjsPath(find: (name: string) => string | undefined = installedAt): string {
  for (const name of TFJS_PACKAGES) {
    const path = find(name);
    if (path !== undefined) return path;
  }
  throw new ConfigError({
    where: 'model',
    expected: `TensorFlow.js, one of ${TFJS_PACKAGES.join(', ')}`,
    received: 'none that is installed',
    remedy: 'npm install @tensorflow/tfjs-node, or @tensorflow/tfjs where that cannot be built',
  });
}

/** Loads it, its backend ready.
 *  @throws {ConfigError} when none is installed, or it does not load */
export async function loadTfjs(find?: (name: string) => string | undefined): Promise<Tfjs> {
  const path = tfjsPath(find);
  try {
    const module = (await import(pathToFileURL(path).href)) as Tfjs & { default?: Tfjs };
    const tf = module.default ?? module;
    await tf.ready();
    return tf;
  } catch (cause) {
    throw new ConfigError(
      {
        where: 'model',
        expected: `TensorFlow.js to load from ${path}`,
        received: messageOf(cause),
        remedy: 'install it again, or remove it so that the next one is taken',
      },
      { cause },
    );
  }
}
