// Sources made of others, as parts of a pipeline file: `take`, `skip`, `repeat`, `concat`, `shard`. What the sources
// inside tell of themselves (plans, fingerprints, summaries) is passed on.

import { createHash } from 'node:crypto';
import type { Cursor, Source } from '../flow/types.js';
import { definePart, type Part } from '../parts.js';
import { decode, z } from '../schema.js';
import { livingSource, sourceSlot } from './source-slot.js';

/** A source of sources, as a part and as it is. */
export type WrappedSource<T> = Part<'source', undefined, Source<T>> &
  Source<T> & {
    /** Checks the sources inside that can be checked before a run. @returns the plans of those that make one */
    readonly plan: () => Promise<readonly unknown[]>;
    /** Changes with the files of the sources inside, as far as they tell. */
    readonly fingerprint: () => Promise<string>;
  };

type Told = Source<unknown> & {
  readonly plan?: () => Promise<unknown>;
  readonly fingerprint?: () => Promise<unknown>;
  readonly summary?: () => string;
};

/** Defines a kind of source around others.
 *  @param schema of its own options; the sources are decoded under `sources`
 *  @param wrap makes the source that is read from those inside */
export function defineWrapper<S extends z.ZodRawShape>(
  kind: string,
  schema: S,
  wrap: (sources: readonly Source<unknown>[], options: z.output<z.ZodObject<S>>) => Source<unknown>,
): (sources: readonly unknown[], options: object) => WrappedSource<unknown> {
  const whole = z.strictObject({ ...schema, sources: z.array(sourceSlot).min(1) });
  type Made = Source<unknown> & Pick<WrappedSource<unknown>, 'fingerprint' | 'plan'>;

  function make(options: z.output<typeof whole>): Made {
    const given = options as unknown as z.output<z.ZodObject<S>> & { readonly sources: readonly unknown[] };
    const inside = given.sources.map(livingSource) as Told[];
    const plain = inside.map((source) => ({
      name: source.name,
      open: (signal: AbortSignal, from?: Cursor) => source.open(signal, from),
    }));
    const { name, open } = wrap(plain, given);
    const most = Math.max(...inside.map(({ maxItemBytes }) => maxItemBytes ?? Infinity));
    const tellers = inside.filter(({ summary }) => typeof summary === 'function');
    return {
      name,
      open,
      ...(Number.isFinite(most) ? { maxItemBytes: most } : {}),
      plan: async () => {
        const plans: unknown[] = [];
        for (const source of inside) plans.push(await source.plan?.());
        return plans.filter((plan) => plan !== undefined);
      },
      fingerprint: async () => {
        const prints: unknown[] = [];
        for (const source of inside) prints.push((await source.fingerprint?.()) ?? null);
        return createHash('sha256').update(JSON.stringify(prints)).digest('hex');
      },
      ...(tellers.length > 0 && { summary: () => tellers.map((source) => source.summary!()).join('; ') }),
    };
  }

  const definition = definePart({
    role: 'source',
    kind,
    schema: whole,
    create: (options, _context: undefined): Made => make(options),
  });
  return (sources, options) => {
    const given = { ...options, sources: [...sources] };
    let made: Made | undefined;
    const itself = (): Made => (made ??= make(decode(whole, given, kind)));
    const [only] = sources as readonly Partial<Source<unknown>>[];
    // Not enumerable: a part is its options, and copies with other options are made of those.
    return Object.defineProperties(definition(given as never), {
      name: { value: sources.length === 1 ? (only?.name ?? kind) : kind },
      maxItemBytes: { get: () => itself().maxItemBytes },
      open: { value: (signal: AbortSignal, from?: Cursor) => itself().open(signal, from) },
      plan: { value: async () => itself().plan() },
      fingerprint: { value: async () => itself().fingerprint() },
      summary: { get: () => (itself() as Told).summary },
    }) as unknown as WrappedSource<unknown>;
  };
}
