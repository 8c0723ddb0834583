// Parts: the plain values that a pipeline file is made of. A builder such as `cosine({ warmup: 0.05 })` returns
// { kind: 'cosine', warmup: 0.05 } with a hidden definition, so that a part can be printed, spread, overridden leaf by
// leaf (`--set`), sent to another thread, and is checked once, as a whole, by the schema of its own definition.

import { ConfigError } from './errors.js';
import { z } from './schema.js';

const DEFINITION = Symbol.for('sluice.part');

/** What a part is for; a slot of the pipeline takes one role. */
export type Role =
  'model' | 'adapter' | 'source' | 'stage' | 'step' | 'optimizer' | 'schedule' | 'sink' | 'score';

interface Definition {
  readonly role: Role;
  readonly kind: string;
  readonly schema: z.ZodObject;
  readonly create: (options: never, context: never) => unknown;
}

/** A part that makes an `M` from a context `C` when the run starts. */
export interface Part<R extends Role = Role, C = never, M = unknown> {
  readonly kind: string;
  /** Phantoms: they carry the types and never hold a value. A part that needs less fits where one may need more. */
  readonly __role?: R;
  readonly __context?: (context: C) => void;
  readonly __made?: M;
}

/** Defines a kind of part and returns its builder.
 *  @param create makes the living object from the checked options when the run starts */
export function definePart<R extends Role, S extends z.ZodObject, C, M>(definition: {
  readonly role: R;
  readonly kind: string;
  readonly schema: S;
  readonly create: (options: z.output<S>, context: C) => M;
}): (options?: z.input<S>) => Part<R, C, M> & z.input<S> {
  return (options) =>
    ({ kind: definition.kind, ...options, [DEFINITION]: definition }) as unknown as Part<R, C, M> &
      z.input<S>;
}

/** A schema for a slot that takes a part of one role. Its output is the part with its options decoded, defaults filled. */
export function part<R extends Role>(role: R): z.ZodType<Part<R>, Part<R>> {
  return z.unknown().transform((value, context): Part<R> => {
    const definition = definitionOf(value);
    if (!definition || definition.role !== role) {
      context.addIssue({
        code: 'custom',
        message: `expected a ${role} made by one of its builders`,
        input: definition ? `a ${definition.role} (${definition.kind})` : value,
      });
      return z.NEVER;
    }
    const { kind, ...options } = value as Record<string, unknown> & { kind: string };
    const result = definition.schema.safeParse(options, { reportInput: true });
    if (!result.success) {
      for (const issue of result.error.issues) context.issues.push({ ...issue, input: issue.input } as never);
      return z.NEVER;
    }
    return { kind, ...result.data, [DEFINITION]: definition } as Part<R>;
  }) as unknown as z.ZodType<Part<R>, Part<R>>;
}

/** True for a value that a part's builder made. */
export function isPart(value: unknown, role?: Role): value is Part {
  const definition = definitionOf(value);
  return definition !== undefined && (role === undefined || definition.role === role);
}

/** Makes the living object of a decoded part. */
export function make<C, M>(decoded: Part<Role, C, M>, context: NoInfer<C>): M {
  const definition = definitionOf(decoded);
  if (!definition) throw new ConfigError(`${decoded.kind}: expected a part made by its builder; rebuild it`);
  const { kind: _kind, ...options } = decoded;
  return definition.create(options as never, context as never) as M;
}

function definitionOf(value: unknown): Definition | undefined {
  if (value === null || (typeof value !== 'object' && typeof value !== 'function')) return undefined;
  return (value as Record<symbol, Definition | undefined>)[DEFINITION];
}

/** A copy of `root` in which the leaf at `path` ('step.optimizer.lr', 'sinks.1.every') is `value`. Parts stay parts.
 *  @throws {ConfigError} when the path leads through something that is no object or list */
export function withLeaf(root: unknown, path: string, value: unknown): unknown {
  return setIn(root, path.split('.'), value, path);
}

function setIn(node: unknown, keys: readonly string[], value: unknown, path: string): unknown {
  const [key, ...rest] = keys;
  if (key === undefined) return value;
  if (Array.isArray(node)) {
    const index = Number(key);
    if (!Number.isInteger(index) || index < 0 || index >= node.length) {
      throw new ConfigError({
        where: `--set ${path}`,
        expected: `an index from 0 to ${node.length - 1}`,
        received: key,
        remedy: 'correct the path',
      });
    }
    return node.map((element: unknown, i) => (i === index ? setIn(element, rest, value, path) : element));
  }
  if (node === undefined) return { [key]: setIn(undefined, rest, value, path) };
  if (node === null || (typeof node !== 'object' && definitionOf(node) === undefined)) {
    throw new ConfigError({
      where: `--set ${path}`,
      expected: `an object or list before '${key}'`,
      received: node === null ? 'null' : `a ${typeof node}`,
      remedy: 'correct the path',
    });
  }
  const made = ['connect', 'open'].some((method) => typeof Reflect.get(node, method) === 'function');
  if (made && !definitionOf(node)) {
    throw new ConfigError({
      where: `--set ${path}`,
      expected: `plain options before '${key}'`,
      received: 'an object that the file has made with them',
      remedy: 'change it in the file',
    });
  }
  const copy = { ...node } as Record<string, unknown>;
  copy[key] = setIn(copy[key], rest, value, path);
  return copy;
}
