// The flow run over samples that are known already, into the pipeline's own batches: the same gate, pool, stages in their
// concurrency, weights and reserves, and a consumer as slow as a device may be, so that the stream fills its pool.

import { setImmediate as nextTurn } from 'node:timers/promises';
import { EMPTY, map, type Observable } from 'rxjs';
import type { Batch } from '../data/types.js';
import {
  type AnyStage,
  type ConsumeContext,
  type FlowEntries,
  type FlowEvent,
  type FlowSummary,
  type ObservedTicket,
  type Source,
  type SourceFault,
  type SourceItem,
  type Ticketed,
  orderedMap,
  runFlow,
} from '../flow/index.js';
import type { SampleFacts } from './plan-columns.js';

/** A sample with what the batches take of it. */
export interface Replayed extends SampleFacts {
  readonly value: unknown;
}

export interface ReplayOptions {
  readonly source: Pick<Source<unknown>, 'name' | 'maxItemBytes'>;
  readonly samples: AsyncIterable<Replayed>;
  /** Those that the samples have been through: their names, concurrency and what they reserve are taken. */
  readonly before: readonly AnyStage[];
  /** Those from the batch on, which are run. */
  readonly after: readonly AnyStage[];
  readonly poolBytes: number;
  readonly maxPoolBytes: number | undefined;
  readonly deviceBytes: number | undefined;
  readonly inFlight: number;
  /** Samples that the stages can make while the device computes a batch, where their times are known. */
  readonly madePerBatch?: number | undefined;
  readonly signal: AbortSignal;
  readonly held: HeldBytes;
  readonly asBatch: (value: unknown) => Batch;
  /** A batch that is done. @returns what to do next: go on slowly, go on at once, or end */
  readonly consume: (batch: Batch, context: ConsumeContext) => 'slow' | 'fast' | 'stop';
  readonly onEvent: (event: FlowEvent) => void;
}

/** An error of the scan, told again. */
export class ToldBefore extends Error {}

/** Runs the samples into batches. @throws {FlowError} when the pool is too small for the graph */
export async function replay(options: ReplayOptions): Promise<FlowSummary> {
  const { source, before, after, poolBytes, deviceBytes, inFlight, signal, held, madePerBatch } = options;
  const feed = new Feed(options.samples);
  let slow = true;
  /** One batch at a time is computed. */
  let device: Promise<unknown> = Promise.resolve();
  return runFlow({
    source: {
      name: source.name,
      ...(source.maxItemBytes !== undefined && { maxItemBytes: source.maxItemBytes }),
      open: () => feed.items(),
    },
    stages: [...proxiesOf(before, feed), ...after] as unknown as FlowEntries<Replayed, unknown>,
    poolBytes,
    maxPoolBytes: options.maxPoolBytes,
    now: () => 0, // a device that never waits: nothing tunes itself
    ...(deviceBytes !== undefined && { deviceBytes }),
    inFlight,
    signal,
    observer: (ticket, change) => held.see(ticket, change === 'delivered'),
    onEvent: options.onEvent,
    consume: (value: unknown, context: ConsumeContext) => {
      const batch = options.asBatch(value);
      const next = options.consume(batch, context);
      if (next === 'stop') context.stop();
      slow &&= next === 'slow';
      device = device.then(() =>
        slow ? step(madePerBatch ?? SLOWNESS * batch.numSamples, feed, held) : undefined,
      );
      return device as Promise<void>;
    },
  });
}

/** How much slower than the stages a device is taken to be where neither's time is given. It tells only while the pool fills
 *  for the first time, before the gate has learnt what samples weigh: a device that never finished would give the most
 *  that the gate lets there be, 14 % more for the audio job and as much for the others. Peaks of the example jobs on 2
 *  cores lie within 8 % of it. */
const SLOWNESS = 6;

/** A step of the device: until the stages have made so many samples, or nothing moves any more. */
async function step(numMade: number, feed: Feed, held: HeldBytes): Promise<void> {
  const end = feed.numMade + numMade;
  for (let still = 0, seen = -1; still < 2 && feed.numMade < end; still++) {
    while (feed.busy && feed.numMade < end) await feed.busy;
    await nextTurn();
    if (feed.busy || held.numChanges !== seen) still = 0;
    seen = held.numChanges;
  }
}

/** The samples as items of a source. */
class Feed {
  /** The next sample, while it is waited for. */
  pending: Promise<unknown> | undefined;
  /** Samples that have been through all stages before the batches. */
  numMade = 0;
  readonly #samples: AsyncIterable<Replayed>;
  #calm: Promise<void> | undefined;
  #numPulled = 0;

  constructor(samples: AsyncIterable<Replayed>) {
    this.#samples = samples;
  }

  /** What keeps samples moving. */
  get busy(): Promise<unknown> | undefined {
    return this.pending ?? this.#calm;
  }

  /** Until no more is pulled. Stages take longer than sources: samples are admitted before those before them are done, by
   *  what is known of their weight until then. */
  calm(): Promise<void> {
    return (this.#calm ??= this.#calmed());
  }

  async #calmed(): Promise<void> {
    // The gate lets the event loop turn now and then: that is no end.
    for (let still = 0, seen = -1; still < 2; still++) {
      while (this.pending) await this.pending;
      await nextTurn();
      if (this.pending || this.#numPulled !== seen) still = -1;
      seen = this.#numPulled;
    }
    this.#calm = undefined;
  }

  async *items(): AsyncGenerator<SourceItem<Replayed> | SourceFault, void, undefined> {
    const iterator = this.#samples[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = iterator.next();
        this.#numPulled += 1;
        this.pending = next.catch(() => undefined);
        const result = await next;
        this.pending = undefined;
        if (result.done === true) return;
        const { value } = result;
        const [bytes] = value.weights;
        if (bytes !== undefined) yield { value, bytes, origin: value.origin };
        else yield { error: new ToldBefore(value.error), bytes: 0, origin: value.origin };
      }
    } finally {
      this.pending = undefined;
      await iterator.return?.();
    }
  }
}

/** A sample in the stages that it has been through. */
interface Passing {
  readonly sample: Replayed;
  readonly ticket: Ticketed<unknown>['ticket'];
}

/** Stages that do to the samples what those did which they have been through. */
function proxiesOf(stages: readonly AnyStage[], feed: Feed): AnyStage[] {
  if (stages.length === 0) {
    return [
      wrapped(
        orderedMap((sample: Replayed) => sample.value, { name: 'plan', concurrency: 1 }),
        (flow) => flow,
      ),
    ];
  }
  return stages.map((stage, index) => {
    const isLast = index === stages.length - 1;
    const proxy = wrapped(proxyOf(stage, index, feed), (flow) => {
      if (index > 0) return flow;
      return (flow as Observable<Ticketed<Replayed>>).pipe(
        map(({ value: sample, ticket }) => ({ value: { sample, ticket }, ticket })),
      );
    });
    if (!isLast) return proxy;
    const { connect } = proxy;
    return Object.defineProperty(
      {
        ...proxy,
        connect: (flow: never) =>
          (connect(flow) as Observable<Ticketed<Passing>>).pipe(
            map(({ value, ticket }) => {
              feed.numMade += 1;
              return { value: value.sample.value, ticket };
            }),
          ),
      },
      'itemBytes',
      { get: () => proxy.itemBytes },
    ) as AnyStage;
  });
}

function proxyOf(stage: AnyStage, index: number, feed: Feed): AnyStage {
  const { name, concurrency = 1 } = stage;
  let itemBytes = stage.itemBytes ?? 0; // before it has seen a sample
  const proxy = orderedMap(
    (passing: Passing) => {
      const { outcome, weights, error } = passing.sample;
      if (weights.length === index + 1) {
        if (outcome === 'dropped') return EMPTY;
        if (outcome === 'quarantined') throw new ToldBefore(error);
      }
      return concurrency > 1 ? feed.calm().then(() => passing) : passing;
    },
    {
      name,
      concurrency,
      weigh: ({ sample: { weights, reserves }, ticket }: Passing) => {
        itemBytes = reserves[index] ?? itemBytes;
        const [before, after = 0] = weights.slice(index);
        // A stage that does not weigh leaves the weight as it is, what was reserved included.
        return after === before ? ticket.bytes : after;
      },
    },
  );
  const { holdsItems, holdsBytes } = stage;
  return Object.defineProperty(
    { ...proxy, ...(holdsItems && { holdsItems }), ...(holdsBytes && { holdsBytes }) },
    'itemBytes',
    { get: () => itemBytes },
  );
}

/** Keeps a getter of `itemBytes`. */
function wrapped(stage: AnyStage, before: (flow: Observable<unknown>) => Observable<unknown>): AnyStage {
  const { connect } = stage;
  return Object.defineProperty(
    { ...stage, connect: (flow: never) => connect(before(flow) as never) },
    'itemBytes',
    { get: () => stage.itemBytes },
  ) as AnyStage;
}

/** Where the device's batches are. */
export const DEVICE = 'device';

/** What each stage holds, from what an observer sees. */
export class HeldBytes {
  /** The most at once, of all. */
  peak = 0;
  /** The most at once in each stage, in the order of the stages. */
  readonly peaks = new Map<string, number>();
  numChanges = 0;
  #all = 0;
  readonly #held = new Map<string, number>();
  readonly #tickets = new Map<ObservedTicket, { stage: string; bytes: number }>();
  /** From here on nothing is noted. */
  #closed = false;

  close(): void {
    this.#closed = true;
  }

  see(ticket: ObservedTicket, delivered: boolean): void {
    this.numChanges += 1;
    if (this.#closed) return;
    const before = this.#tickets.get(ticket);
    if (before) this.#add(before.stage, -before.bytes);
    if (ticket.outcome !== undefined) {
      this.#tickets.delete(ticket);
      return;
    }
    const stage = delivered ? DEVICE : before?.stage === DEVICE ? DEVICE : ticket.stage;
    this.#add(stage, ticket.bytes);
    this.#tickets.set(ticket, { stage, bytes: ticket.bytes });
  }

  #add(stage: string, bytes: number): void {
    const held = (this.#held.get(stage) ?? 0) + bytes;
    this.#held.set(stage, held);
    if (held > (this.peaks.get(stage) ?? -1)) this.peaks.set(stage, held);
    this.#all += bytes;
    if (this.#all > this.peak) this.peak = this.#all;
  }
}
