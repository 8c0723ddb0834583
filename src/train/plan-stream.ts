// The plan of one stream: its samples from an earlier scan or from the data, run into its own batches.

import { ConfigError, messageOf } from '../errors.js';
import { uncached } from '../data/cache.js';
import { decodedOnly, headersOnly } from '../data/unread-media.js';
import type { MixCount } from '../data/mix.js';
import { type AnyStage, type Source, heldAtMost, stagesOf } from '../flow/index.js';
import { isPart } from '../parts.js';
import { ScanCache } from './plan-cache.js';
import { dataFolder, scanKey } from './plan-key.js';
import { DEVICE, HeldBytes, ToldBefore, replay } from './plan-replay.js';
import { KnownSamples } from './plan-samples.js';
import { Tally, type Totals } from './plan-tally.js';
import type { EpochForecast, FlowForecast, MixShare } from './plan-types.js';
import { type Declared, asBatch, sourceOf, stagesFrom } from './sample-flow.js';

export interface PlanStreamOptions {
  readonly declared: Declared;
  readonly deviceBytes?: number | undefined;
  readonly inFlight: number;
  /** Samples that the stages before the batches can make while a batch is computed; undefined where that is not known. */
  readonly madePerBatch?: (before: readonly AnyStage[]) => number | undefined;
  /** Ends the stream after so many batches, or samples. */
  readonly maxBatches?: number;
  readonly maxSamples?: number | undefined;
  /** Whether to count the rest of the first epoch, where the stream ends before it. */
  readonly wholeEpoch: boolean;
  /** Decode all media. */
  readonly thorough: boolean;
  readonly modelFolder: string;
  /** Digest of the pipeline file's code. */
  readonly code: string;
  /** Where a scan is kept that cannot be kept beside its data. */
  readonly userFolder: string | undefined;
  /** Keep and use scans. */
  readonly cache: boolean;
  readonly keepsOrigins: boolean;
  readonly signal: AbortSignal;
}

export interface PlannedStream {
  readonly forecast: FlowForecast;
  readonly totals: Totals;
  readonly tally: Tally;
  readonly epoch: EpochForecast | null;
  /** It ends with its source. */
  readonly complete: boolean;
  /** Stages from the first to the batch, and the batch's. */
  readonly stages: readonly AnyStage[];
  readonly sourceName: string;
}

/** @throws what the source throws, and {FlowError} when the pool is too small for the graph, with the numbers */
export async function planStream(given: PlanStreamOptions): Promise<PlannedStream> {
  const options = { ...given, declared: { ...given.declared, flow: uncached(given.declared.flow) } };
  const { declared, signal } = options;
  const startedAt = performance.now();
  const { cut, media, notes, replayable } = outlook(declared.flow, options.thorough);
  const processor = declared.processor.withReader(media === 'headers' ? headersOnly : decodedOnly);
  const entries = stagesFrom({ ...declared, processor }) as readonly unknown[];
  const made = entries.map((entry, i) => stagesOf([...new Array<undefined>(i), entry as never]));
  const [before, after] = [made.slice(0, cut).flat(), made.slice(cut).flat()];
  const source = sourceOf(declared);
  const holds = heldAtMost(source, [...before, ...after]);

  const cache = replayable ? await cacheOf(options, media, cut) : undefined;
  const samples = new KnownSamples({
    scan: { source, stages: before, poolBytes: declared.poolBytes, signal },
    cache,
    replayable,
  });
  await samples.open();

  // Copies: they keep what the stages reserve before they have seen a sample.
  const fresh = before.map((stage) => ({ ...stage }));
  const graph: Graph = { source, before: fresh, after, samples, options };
  const pass = await planned(graph, replayable);
  const path = await samples.keep();

  const { tally, held, totals } = pass;
  const settings = processor.media.audio?.settings;
  const { meanBytes: _mean, mixed, heardFrames, ...counts } = totals;
  const positions = totals.tokens + totals.paddedTokens;
  const names = [source.name, ...[...before, ...after].map(({ name }) => name), DEVICE];
  const forecast: FlowForecast = {
    ...counts,
    quarantinedRows: tally.quarantinedRows.slice(0, totals.quarantined),
    paddingShare: positions === 0 ? 0 : totals.paddedTokens / positions,
    soundSeconds: settings ? (heardFrames * settings.hopLength) / settings.sampleRateHz : 0,
    mix: mixOf(source, mixed),
    poolBytes: declared.poolBytes,
    maxPoolBytes: declared.maxPoolBytes ?? null,
    neededBytes: holds.needed,
    holds: holds.holders,
    peakBytes: held.peak,
    stages: [...new Set(names)].map((name) => ({ name, peakBytes: held.peaks.get(name) ?? 0 })),
    scan: {
      from: samples.from,
      media,
      samples: samples.length,
      ms: performance.now() - startedAt,
      path: path ?? null,
    },
    notes: [...notes, ...samples.notes],
  };
  return {
    forecast,
    totals,
    tally,
    epoch: tally.epochEnded ? tally.epoch : null,
    complete: pass.complete,
    stages: before,
    sourceName: source.name,
  };
}

interface Graph {
  readonly source: Source<unknown>;
  readonly before: readonly AnyStage[];
  readonly after: readonly AnyStage[];
  readonly samples: KnownSamples;
  readonly options: PlanStreamOptions;
}

/** What the samples were run into. */
interface Pass {
  readonly tally: Tally;
  readonly held: HeldBytes;
  readonly totals: Totals;
  /** The stream has ended by itself. */
  readonly complete: boolean;
  /** Nothing of it hangs on samples that are not known. */
  readonly sound: boolean;
}

/** From what is known where that suffices; else what is lacking is read first. So a plan is the same when it is made again. */
async function planned(graph: Graph, replayable: boolean): Promise<Pass> {
  if (graph.samples.length > 0) {
    const known = await run(graph, 'known');
    if (known.sound) return known;
  }
  const read = await run(graph, 'all');
  if (!replayable) return read;
  const known = await run(graph, 'known');
  return known.sound ? known : read;
}

async function run(
  { source, before, after, samples, options }: Graph,
  which: 'known' | 'all',
): Promise<Pass> {
  const { declared, signal, maxBatches = Infinity, maxSamples = Infinity } = options;
  const held = new HeldBytes();
  const tally = new Tally([source.name, ...before.map(({ name }) => name)], options.keepsOrigins);
  let bounded: Totals | undefined;
  const isRead = (): boolean => !options.wholeEpoch || !tally.tellsEpochs || tally.epochEnded;
  const summary = await replay({
    source,
    samples: samples.each(which, (sample) => tally.came(sample)),
    before,
    after,
    poolBytes: declared.poolBytes,
    maxPoolBytes: declared.maxPoolBytes,
    deviceBytes: options.deviceBytes,
    inFlight: options.inFlight,
    madePerBatch: options.madePerBatch?.(before),
    signal,
    held,
    asBatch: (value) => asBatch(value, declared.where),
    consume: (batch, context) => {
      tally.add(batch, context);
      if (!bounded) {
        const { batches, samples: count } = tally.totals();
        if (batches < maxBatches && count < maxSamples) return 'slow';
        bounded = tally.totals();
        held.close();
      }
      return isRead() ? 'stop' : 'fast';
    },
    onEvent: (event) => {
      if (event.kind === 'quarantine' && !(event.error instanceof ToldBefore) && !bounded)
        tally.quarantined(event.origin, event.stage, messageOf(event.error));
    },
  });
  signal.throwIfAborted();
  // Where samples are lacking, the last ones made a batch that is none.
  const whole =
    samples.complete || (bounded !== undefined && isRead() && tally.numPassed <= samples.lastMade);
  if (summary.ended === 'complete') tally.ended(summary.ledger);
  return { tally, held, totals: bounded ?? tally.totals(), complete: !bounded, sound: whole };
}

/** How a flow can be planned. */
interface Outlook {
  /** Number of entries before the batches. */
  readonly cut: number;
  readonly media: 'headers' | 'decoded';
  /** Whether the batches need no more of a sample than a scan keeps. */
  readonly replayable: boolean;
  readonly notes: readonly string[];
}

const GATHERERS = ['batch', 'pack'];

function outlook(flow: readonly unknown[], thorough: boolean): Outlook {
  const kinds = flow.map((entry) => (isPart(entry) ? entry.kind : undefined));
  const gathers = flow.findIndex((entry, i) => GATHERERS.includes(kinds[i] ?? '') || isHolder(entry));
  const cut = gathers < 0 ? Math.max(0, flow.length - 1) : gathers;
  const replayable = flow.slice(cut).every((_, i) => GATHERERS.includes(kinds[cut + i] ?? ''));
  const decodes = kinds.indexOf('decodeMedia');
  const encodes = kinds.indexOf('encode');
  const end = encodes < 0 ? cut : encodes;
  const notes: string[] = [];
  const between = flow.slice(decodes + 1, end).findIndex((entry) => !isPart(entry));
  const isOwnEncoder = encodes < 0 && cut > 0;
  let media: Outlook['media'] = thorough ? 'decoded' : 'headers';
  if (!thorough && decodes >= 0 && (between >= 0 || end - decodes > 1)) {
    media = 'decoded';
    const name = nameOf(flow[decodes + 1 + Math.max(0, between)]);
    notes.push(`all media are decoded, since ${name} takes them decoded`);
  } else if (!thorough && isOwnEncoder) {
    media = 'decoded';
    notes.push('all media are decoded, since the flow has an encoder of its own');
  }
  const seesArrays =
    encodes >= 0 && flow.slice(encodes + 1).some((_, i) => !GATHERERS.includes(kinds[encodes + 1 + i] ?? ''));
  if (seesArrays) notes.push('what comes after encode is given pixel values and features that are all zero');
  return { cut, media, replayable, notes };
}

function isHolder(entry: unknown): boolean {
  const { connect, gathers = 1, holdsItems = 1, holdsBytes } = (entry ?? {}) as Partial<AnyStage>;
  return typeof connect === 'function' && (gathers > 1 || holdsItems > 1 || holdsBytes !== undefined);
}

function nameOf(entry: unknown): string {
  const { name, kind } = (entry ?? {}) as { name?: unknown; kind?: unknown };
  if (isPart(entry)) return String(kind);
  return typeof name === 'string' && name !== '' ? name : 'a function of its own';
}

async function cacheOf(
  { declared, modelFolder, code, userFolder, cache }: PlanStreamOptions,
  media: string,
  cut: number,
): Promise<ScanCache | undefined> {
  if (!cache) return undefined;
  const { source, purpose } = declared;
  const key = await scanKey({
    source,
    flow: declared.flow.slice(0, cut),
    modelFolder,
    purpose,
    media,
    code,
  });
  return key === undefined
    ? undefined
    : new ScanCache(key, { dataFolder: await dataFolder(source), userFolder });
}

function mixOf(source: Source<unknown>, mixed: readonly number[]): MixShare[] | null {
  const { counts } = source as { counts?: () => readonly MixCount[] };
  if (typeof counts !== 'function') return null;
  const all = mixed.reduce((sum, items) => sum + (items ?? 0), 0);
  return counts().map(({ name, weight }, i) => {
    const items = mixed[i] ?? 0;
    return { name, weight, items, share: all === 0 ? 0 : items / all };
  });
}

/** A stream that would never end. */
export function endless({ where }: Declared): ConfigError {
  return new ConfigError({
    where: `${where}source.epochs`,
    expected: 'a number, since nothing else ends it',
    received: 'Infinity',
    remedy: 'give epochs, or limit',
  });
}
