// The pipeline file's `cache`: what its stages make of a sample is kept on disk, so that later epochs and runs read it
// instead of making it.

import { createHash } from 'node:crypto';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import sharp from 'sharp';
import { digest } from '../digest.js';
import { ConfigError } from '../errors.js';
import { chain, stagesOf } from '../flow/index.js';
import type { AnyStage, FlowEntry, Origin, Stage } from '../flow/types.js';
import { definePart, isPart, make, part, type Part } from '../parts.js';
import { z } from '../schema.js';
import { version } from '../version.js';
import { cacheStages } from './cache-stage.js';
import { CacheStore } from './cache-store.js';
import { wholeMedia } from './media-arrays.js';
import { plainBytes } from './plain-value.js';
import { processorDigest } from './processor-files.js';
import type { SampleNotice, StageContext } from './stages.js';

type Entry<A, B> = FlowEntry<A, B> | Part<'stage', StageContext, Stage<A, B>>;

export interface CacheOptions {
  /** Bound on the bytes of all files in the folder, of other caches and processes too. */
  readonly maxBytes: number;
  /** The folder; `sluice/samples` in the user's cache folder by default. */
  readonly dir?: string;
  /** Changes the keys: give another one when something has changed that the text of the stages' functions does not show,
   *  such as what they call. */
  readonly version?: string | number;
}

const stageSlot = part('stage');
const entry = z.unknown().transform((value, context): unknown => {
  const isStage = typeof (value as { connect?: unknown } | null)?.connect === 'function';
  if (!isPart(value) && (typeof value === 'function' || isStage)) return value;
  const result = stageSlot.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  for (const issue of result.error.issues) context.issues.push({ ...issue, input: issue.input } as never);
  return z.NEVER;
});

const definition = definePart({
  role: 'stage',
  kind: 'cache',
  schema: z.strictObject({
    stages: z.array(entry).min(1).max(8),
    maxBytes: z.number().positive(),
    dir: z.string().min(1).optional(),
    version: z.union([z.string(), z.number()]).optional(),
  }),
  create: (options, context: StageContext): Stage<unknown, unknown> => {
    const noticed = new WeakMap<Origin, SampleNotice[]>();
    const onNotice = (notice: SampleNotice): void => {
      const before = noticed.get(notice.origin);
      if (before) before.push(notice);
      else noticed.set(notice.origin, [notice]);
      context.onNotice?.(notice);
    };
    const made = options.stages.map((each) =>
      isPart(each) ? make(each as Part<'stage', StageContext>, { ...context, onNotice }) : each,
    );
    const inner = stagesOf(made as never[], 'cache.stages');
    inner.forEach(checkInner);
    const { processor, purpose } = context;
    // A plan's media are blank.
    if (processor.reader !== wholeMedia) return joined(inner);
    const { folder } = processor;
    if (folder === undefined) throw withoutFolder();
    const { maxBytes, dir = defaultFolder() } = options;
    const made0 = digest([options.stages, options.version ?? null]);
    let prefix: string | undefined;
    return joined(
      cacheStages({
        inner,
        onNotice: context.onNotice,
        noticed,
        openStore: async (onTrouble) => {
          prefix ??= digest([version(), sharp.versions, purpose, made0, await processorDigest(folder)]);
          return CacheStore.open({ dir: resolve(dir), stages: prefix, maxBytes, onTrouble });
        },
        keyOf: (value, origin) => sampleKey(made0, purpose, value, origin),
      }),
    );
  },
});

/** Keeps on disk what `stages` make of a sample. A sample that is known is read: its stages do not run.
 *
 *  A sample is known by all that came to the stages (its row with encoded media, or what was made of it before) and its
 *  place; the stages by their options, the text of their functions, the processor's files, Sluice's version and the
 *  decoders'. Changed data, or stages before the cache that change samples at random, are therefore never mistaken, only
 *  made anew; a stage *within* must make the same of the same sample. Samples that are dropped are known as such; those
 *  that are quarantined are tried again. What is no plain data is not kept, which is told.
 *
 *  A full folder admits no more, when nothing in it has gone unused for long; a disk that fails is told once, and the
 *  run goes on without. Several processes may share a folder.
 *  @example cache([decodeMedia(), encode()], { maxBytes: 10e9 }) */
export function cache<T, A, B = A, C = B, D = C, E = D, F = E, G = F, H = G>(
  stages: readonly [
    Entry<T, A>,
    Entry<A, B>?,
    Entry<B, C>?,
    Entry<C, D>?,
    Entry<D, E>?,
    Entry<E, F>?,
    Entry<F, G>?,
    Entry<G, H>?,
  ],
  options: CacheOptions,
): Part<'stage', StageContext, Stage<T, H>> {
  return definition({ stages: [...stages], ...options }) as unknown as Part<
    'stage',
    StageContext,
    Stage<T, H>
  >;
}

/** The entries of a flow with those of its caches in their place: what is made of samples is the same. */
export function uncached(flow: readonly unknown[]): unknown[] {
  return flow.flatMap((each) =>
    isPart(each) && each.kind === 'cache'
      ? uncached((each as unknown as { stages: unknown[] }).stages)
      : [each],
  );
}

function joined(stages: readonly AnyStage[]): Stage<unknown, unknown> {
  const whole = (chain as unknown as (...parts: readonly AnyStage[]) => Stage<unknown, unknown>)(
    ...stages.slice(0, 1),
  );
  return { ...whole, name: 'cache', parts: stages };
}

function sampleKey(stages: string, purpose: string, value: unknown, origin: Origin): string {
  const { tree, arrays } = plainBytes(value, 'cache: a sample');
  const { rowGroup, row } = origin;
  const file = origin.file.replace(/^.*[\\/]/s, '');
  const hash = createHash('sha256')
    .update(JSON.stringify([stages, purpose, file, rowGroup, row]))
    .update(tree);
  for (const array of arrays) hash.update(array);
  return hash.digest('hex').slice(0, 32);
}

/** @throws {ConfigError} for a stage that a known sample must not pass by, or that holds several */
function checkInner(stage: AnyStage): void {
  const { name, onlooker, gathers = 1, holdsItems = 1, holdsBytes } = stage;
  const holds = gathers > 1 || holdsItems > 1 || holdsBytes !== undefined;
  if (!holds && !onlooker) return;
  throw new ConfigError({
    where: 'cache.stages',
    expected: 'stages that make one sample of another',
    received: holds
      ? `${name}, which gathers several`
      : `${name}, which would not see what is read from the cache`,
    remedy: 'put it behind the cache',
  });
}

function withoutFolder(): ConfigError {
  return new ConfigError({
    where: 'cache',
    expected: 'a processor that was loaded from files, by which a changed one is told',
    received: 'one without',
    remedy: 'load it with loadProcessor(folder)',
  });
}

/** Beside the engine's, by the same rules. */
function defaultFolder(): string {
  const { SLUICE_CACHE, XDG_CACHE_HOME, HOME } = process.env;
  const root = SLUICE_CACHE || join(XDG_CACHE_HOME || join(HOME || homedir(), '.cache'), 'sluice');
  return resolve(root, 'samples');
}
