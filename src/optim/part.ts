// What a builder such as `adamw({ lr })` returns: a part of the pipeline file that can be called with tensors.

import { definePart, type Part } from '../parts.js';
import { decode, type z } from '../schema.js';
import type { Parameters } from './groups.js';
import type { Optimizer } from './optimizer.js';

/** A part of the pipeline file, and a function that makes the optimizer of some tensors, named tensors or groups. */
export type OptimizerPart<O> = Part<'optimizer', Parameters, Optimizer> &
  O &
  ((parameters: Parameters) => Optimizer);

/** Makes the optimizer of some tensors. @throws {ConfigError} naming every option out of range */
export interface OptimizerBuilder<O> {
  (options: O): OptimizerPart<O>;
  readonly kind: string;
}

/** Defines a kind of optimizer and returns its builder. */
export function optimizerPart<S extends z.ZodObject>(
  kind: string,
  schema: S,
  create: (parameters: Parameters, options: z.output<S>) => Optimizer,
): OptimizerBuilder<z.input<S>> {
  const definition = definePart({
    role: 'optimizer',
    kind,
    schema,
    create: (options, parameters: Parameters) => create(parameters, options),
  });
  const builder = (options: z.input<S>): OptimizerPart<z.input<S>> => {
    const { ...own } = options;
    const make = (parameters: Parameters) => create(parameters, decode(schema, own, kind));
    return Object.assign(make, definition(own)) as OptimizerPart<z.input<S>>;
  };
  return Object.assign(builder, { kind });
}
