// What a stream is a function of, as digests: a run that is continued must read the same data in the same way, or its
// samples are not those that it stood before.

import { createHash } from 'node:crypto';
import { ConfigError } from '../errors.js';
import { z } from '../schema.js';
import { isPart, make } from '../parts.js';

export const STREAM_PLAN = z.strictObject({
  source: z.string(),
  data: z.string(),
  flow: z.string(),
  seed: z.string(),
  accumulate: z.string(),
});

/** A digest of each: the source's options, the files' content, the flow's stages, the run's seed, micro-batches a step. */
export type StreamPlan = z.output<typeof STREAM_PLAN>;

/** What of a pipeline its stream is a function of. */
interface Streamed {
  readonly source?: unknown;
  readonly flow: readonly unknown[];
  readonly seed: number;
  readonly step?: { readonly accumulate: number };
}

/** @throws whatever reading the source's files throws */
export async function streamPlan({ source, flow, seed, step }: Streamed): Promise<StreamPlan> {
  return {
    source: digest(source),
    data: digest(await fingerprintOf(source)),
    flow: digest(flow),
    seed: digest(seed),
    accumulate: digest(step?.accumulate ?? 1),
  };
}

/** What differs, in the words of a pipeline file. */
export function differences(before: StreamPlan, now: StreamPlan): string[] {
  const names = {
    source: "the source's options",
    data: "the source's files",
    flow: 'the flow',
    seed: 'the seed',
    accumulate: 'step.accumulate',
  } as const;
  return (Object.keys(names) as (keyof StreamPlan)[])
    .filter((key) => before[key] !== now[key])
    .map((key) => names[key]);
}

/** @throws {ConfigError} naming what differs */
export function refuseOtherPlan(changed: readonly string[], checkpoint: string): void {
  if (changed.length === 0) return;
  throw new ConfigError({
    where: '--resume',
    expected: `what ${checkpoint} was trained with`,
    received: `changes of ${changed.join(', ')}`,
    remedy:
      'undo them, or go on regardless with --resume-anyway, at the same number of items into the new stream',
  });
}

/** Changes with the content of the source's files; null where it cannot tell. */
export async function fingerprintOf(source: unknown): Promise<unknown> {
  const made = isPart(source, 'source') ? make(source as never, undefined) : source;
  const { fingerprint } = (made ?? {}) as { fingerprint?: () => Promise<unknown> };
  return typeof fingerprint === 'function' ? fingerprint.call(made) : null;
}

/** Functions count by their text, stages that are made already by what they say of themselves, and files by their
 *  fingerprint: they may lie elsewhere. How many samples a stage has at once does not change their order. */
export function digest(value: unknown): string {
  const text = JSON.stringify(value, (key, inner: unknown) => {
    if (key === 'files' || key === 'concurrency') return undefined;
    if (typeof inner === 'bigint') return `${inner}n`;
    if (typeof inner === 'function' && !isPart(inner)) return { code: String(inner) };
    if (isPart(inner)) return { ...(inner as object) };
    return inner;
  });
  return createHash('sha256')
    .update(text ?? '')
    .digest('hex')
    .slice(0, 32);
}
