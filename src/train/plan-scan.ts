// What a plan needs to know of each sample, found by running the stream itself as far as its batches: the pipeline's own
// source and stages through the flow, with media whose arrays are blank.

import { Observable } from 'rxjs';
import type { AnyStage, FlowEvent, ObservedTicket, Origin, Source, Ticketed } from '../flow/index.js';
import { runFlow } from '../flow/index.js';
import { messageOf } from '../errors.js';
import type { MixCount } from '../data/mix.js';

/** A sample as it came to the batches, or did not. */
export interface Scanned {
  readonly origin: Origin;
  /** Number of its item of the source. */
  readonly item: number;
  /** Of the source, from 0; -1 where the source does not tell. */
  readonly epoch: number;
  /** Which source of a mix it is of; -1 without a mix. */
  readonly mixed: number;
  /** Bytes as it came from the source, and as it left each stage that it did leave; none where the source could not read
   *  it. */
  readonly weights: readonly number[];
  /** The `itemBytes` of those stages when it left them. */
  readonly reserves: readonly number[];
  readonly outcome: 'made' | 'dropped' | 'quarantined';
  /** Why it was quarantined. */
  readonly error?: string;
  /** What the last stage made. */
  readonly value?: unknown;
}

export interface ScanOptions {
  readonly source: Source<unknown>;
  /** As far as the batches. */
  readonly stages: readonly AnyStage[];
  readonly poolBytes: number;
  readonly signal: AbortSignal;
}

/** All samples in order, those that are dropped and quarantined too; read only as far as it is asked to. Closing it
 *  closes the source. @throws what the source throws */
export async function* scan(options: ScanOptions): AsyncGenerator<Scanned, void, undefined> {
  const scanner = new Scanner(options);
  const running = scanner.run();
  try {
    for (;;) {
      const next = scanner.take() ?? (await scanner.more());
      if (next) yield next;
      else if (scanner.hasEnded) break;
    }
    await running;
  } finally {
    scanner.stop();
    await running.catch(() => undefined); // told above, unless nobody wants to know any more
  }
}

/** A sample on its way. */
interface Underway {
  readonly origin: Origin;
  readonly item: number;
  readonly epoch: number;
  readonly mixed: number;
  weights: number[];
  reserves: number[];
  /** Samples that were made of the same item, and how many weights are those of the whole item. */
  readonly family: { size: number };
  shared: number;
  outcome?: Scanned['outcome'];
  error?: string;
  value?: unknown;
  /** The one after it in order. */
  next?: Underway;
}

/** Samples that are kept ready for whoever reads, and the most that lies before them: no more is read than is asked for. */
const AHEAD = 256;
const MOST_POOL_BYTES = 64 * 2 ** 20;

class Scanner {
  hasEnded = false;
  readonly #options: ScanOptions;
  readonly #controller = new AbortController();
  readonly #underway = new Map<object, Underway>();
  /** The first and the last in order; those at the front that are settled become ready. */
  #first: Underway | undefined;
  #last: Underway | undefined;
  /** The last sample of each item that is on its way. */
  readonly #newest = new Map<number, Underway>();
  #ready: Scanned[] = [];
  #failed: Underway | undefined;
  #counts: readonly number[] = [];
  #wakeReader = (): void => {};
  #wakeFlow = (): void => {};

  constructor(options: ScanOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    const { source, stages, poolBytes, signal } = this.#options;
    const last: AnyStage = {
      name: 'plan',
      connect: (flow) =>
        new Observable((subscriber) =>
          (flow as Observable<Ticketed<unknown>>).subscribe({
            next: (item) => {
              const sample = this.#underway.get(item.ticket);
              if (sample) sample.value = item.value;
              subscriber.next(item);
            },
            error: (error: unknown) => subscriber.error(error),
            complete: () => subscriber.complete(),
          }),
        ),
    };
    try {
      await runFlow({
        source,
        stages: [...stages.map(weightless), last] as never,
        poolBytes: Math.min(poolBytes, MOST_POOL_BYTES),
        signal: AbortSignal.any([signal, this.#controller.signal]),
        observer: (ticket, change) => {
          if (this.#controller.signal.aborted) return;
          if (change === 'issued') this.#issued(ticket);
          else if (change === 'entered') this.#entered(ticket);
          else if (change === 'settled') this.#settled(ticket);
        },
        onEvent: (event) => this.#take(event),
        consume: () => this.#room(),
      });
      signal.throwIfAborted();
    } finally {
      this.hasEnded = true;
      this.#wakeReader();
    }
  }

  stop(): void {
    this.#controller.abort();
    this.#wakeFlow();
  }

  take(): Scanned | undefined {
    const next = this.#ready.shift();
    if (this.#ready.length < AHEAD) this.#wakeFlow();
    return next;
  }

  /** The next sample when it is ready; undefined when something has changed. */
  async more(): Promise<Scanned | undefined> {
    if (!this.hasEnded) await new Promise<void>((wake) => (this.#wakeReader = wake));
    return this.take();
  }

  #room(): Promise<void> | void {
    if (this.#ready.length < AHEAD) return;
    return new Promise((wake) => (this.#wakeFlow = wake));
  }

  #issued(ticket: ObservedTicket): void {
    const { origin, sequence: item } = ticket;
    const sibling = this.#newest.get(item);
    const sample: Underway = {
      origin,
      item,
      epoch: sibling?.epoch ?? epochOf(ticket.cursor),
      mixed: sibling?.mixed ?? this.#drawn(),
      weights: sibling?.weights.slice() ?? [],
      reserves: sibling?.reserves.slice() ?? [],
      family: sibling?.family ?? { size: 0 },
      shared: 0,
    };
    sample.family.size += 1;
    if (sibling) sample.shared = sibling.shared = sample.weights.length;
    if (sibling) {
      sample.next = sibling.next;
      sibling.next = sample;
    } else if (this.#last) this.#last.next = sample;
    this.#first ??= sample;
    if (!sibling || sibling === this.#last) this.#last = sample;
    this.#newest.set(item, sample);
    this.#underway.set(ticket, sample);
  }

  /** Which source of a mix the item is of that has just come. */
  #drawn(): number {
    const { counts } = this.#options.source as { counts?: () => readonly MixCount[] };
    if (typeof counts !== 'function') return -1;
    const now = counts().map(({ items }) => items);
    const drawn = now.findIndex((items, i) => items !== (this.#counts[i] ?? 0));
    this.#counts = now;
    return drawn;
  }

  #entered(ticket: ObservedTicket): void {
    const sample = this.#underway.get(ticket);
    if (!sample) return;
    const stage = this.#options.stages[sample.weights.length - 1];
    if (stage) sample.reserves.push(stage.itemBytes ?? 0);
    sample.weights.push(ticket.bytes);
  }

  #settled(ticket: ObservedTicket): void {
    const sample = this.#underway.get(ticket);
    if (!sample) return;
    this.#underway.delete(ticket);
    if (ticket.outcome === 'quarantined') {
      this.#failed = sample; // its event follows at once
      return;
    }
    sample.outcome = ticket.outcome === 'trained' ? 'made' : 'dropped';
    this.#advance();
  }

  #take(event: FlowEvent): void {
    if (event.kind !== 'quarantine' || !this.#failed) return;
    this.#failed.error = messageOf(event.error);
    this.#failed.outcome = 'quarantined';
    this.#failed = undefined;
    this.#advance();
  }

  #advance(): void {
    const { length } = this.#ready;
    for (let sample = this.#first; sample?.outcome; sample = this.#first) {
      this.#ready.push(finished(sample));
      this.#first = sample.next;
      if (sample === this.#last) this.#last = undefined;
      if (this.#newest.get(sample.item) === sample) this.#newest.delete(sample.item);
    }
    if (this.#ready.length > length) this.#wakeReader();
  }
}

function finished({ family, shared, weights, outcome, next: _next, ...sample }: Underway): Scanned {
  const own = weights.map((bytes, i) => (i < shared ? Math.ceil(bytes / family.size) : bytes));
  return { ...sample, weights: own, outcome: outcome ?? 'dropped' };
}

/** The stage as it is, but for what it reserves: samples then weigh what they weigh. One that only shows values to
 *  somebody is left out. */
function weightless({ itemBytes: _itemBytes, parts: _parts, ...stage }: AnyStage): AnyStage {
  return stage.onlooker ? { ...stage, connect: (flow) => flow } : stage;
}

/** As the sources of rows tell it in their cursors, and those around them. */
function epochOf(cursor: unknown): number {
  if (typeof cursor !== 'object' || cursor === null) return -1;
  const { epoch, at } = cursor as { epoch?: unknown; at?: unknown };
  return typeof epoch === 'number' ? epoch : epochOf(at);
}
