// The parameters of a configuration by name and shape, without any memory for them: the model is built on libtorch's
// "meta" device, so that there is one account of what a model holds, the model itself.

import { withDefaults, type Tensor } from '../../tensor/index.js';
import type { Gemma3nConfig } from './config.js';
import { createGemma3n, type Gemma3n } from './model.js';
import { deadWeightShapes } from './weights.js';

export type Shapes = ReadonlyMap<string, readonly number[]>;

/** Runs `use` with a model whose tensors have shapes and no elements. It lives no longer. */
export function withShapesOnly<T>(config: Gemma3nConfig, use: (model: Gemma3n) => T): T {
  const model = withDefaults({ device: 'meta' }, () => createGemma3n(config));
  try {
    return use(model);
  } finally {
    model.dispose();
  }
}

/** Every parameter of the model by Hugging Face's names, in the model's order.
 *  @throws {ConfigError} when the image tower cannot be built, or does not fit the rest */
export function parameterShapes(config: Gemma3nConfig): Shapes {
  return withShapesOnly(config, shapesOf);
}

/** Keys and values of sharing layers that a published checkpoint holds besides: nothing reads them. */
export function storedDeadShapes(config: Gemma3nConfig): Shapes {
  const { attentionBias } = config.text;
  return new Map(
    [...deadWeightShapes(config)].filter(([name]) =>
      name.endsWith('.bias') ? attentionBias : !name.endsWith('.v_norm.weight'),
    ),
  );
}

export function shapesOf(model: { namedParameters(): Iterable<[string, Tensor]> }): Shapes {
  return new Map(Array.from(model.namedParameters(), ([name, { shape }]) => [name, shape]));
}

export function numElements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
