// The cache's way through the flow: `opening` looks samples up, in order, and sends those that are not known through the
// inner stages; `closing` takes what comes out, writes it down, and lets known and new samples go on in the order that
// they came in. Between the two a sample's ticket is followed by a stand-in, which learns what becomes of it.

import { Observable, type Subscriber } from 'rxjs';
import { FlowError, messageOf } from '../errors.js';
import type { AnyStage, FlowEvent, FlowPosition, Origin, Stage, Ticket, Ticketed } from '../flow/types.js';
import { recordOf } from './cache-record.js';
import { CacheStore } from './cache-store.js';
import type { SampleNotice } from './stages.js';

export const NAME = 'cache';
/** Samples that are looked up at once. */
const LOOKUPS = 8;

export interface CacheStagesOptions {
  readonly inner: readonly AnyStage[];
  readonly openStore: (onTrouble: (message: string) => void) => Promise<CacheStore>;
  /** The key of a sample; throws where its value is no plain data. */
  readonly keyOf: (value: unknown, origin: Origin) => string;
  readonly onNotice: ((notice: SampleNotice) => void) | undefined;
  /** What was noticed of a sample within, by its stand-in's origin. */
  readonly noticed: WeakMap<Origin, SampleNotice[]>;
}

/** What is kept of a sample: what each sample that was made of it became, null where it was dropped, and notices. */
interface Kept {
  readonly leaves: readonly ({ readonly value: unknown; readonly bytes?: number } | null)[];
  readonly notices: readonly { readonly stage: string; readonly message: string }[];
  /** The inner stages reserve as much for each sample, since this one is so heavy. */
  readonly heavy: boolean;
}

/** A sample between the two ends. */
interface Entry {
  readonly ticket: Ticket;
  readonly value: unknown;
  key: string | undefined;
  kept: Kept | undefined;
  looked: boolean;
  done: boolean;
  leaves: StandIn[];
  writing: boolean;
}

/** The stages: opening, the inner ones, closing. */
export function cacheStages(options: CacheStagesOptions): AnyStage[] {
  let session: Session | undefined;
  let heaviest = 0;
  const innerBytes = (): number => Math.max(0, ...options.inner.map(({ itemBytes = 0 }) => itemBytes));
  const declared = innerBytes();
  const opening: Stage<unknown, unknown> = {
    name: NAME,
    concurrency: LOOKUPS,
    get itemBytes() {
      return heaviest;
    },
    connect: (source) => {
      const own = new Session(options, {
        isHeavy: (bytes) => bytes > declared && innerBytes() >= bytes,
        heavy: (bytes) => (heaviest = Math.max(heaviest, bytes)),
      });
      session = own;
      return new Observable((subscriber) => own.open(source, subscriber));
    },
  };
  const closing: Stage<unknown, unknown> = {
    name: NAME,
    connect: (source, reserve = () => 0) => {
      const own = session!;
      return new Observable((subscriber) => own.close(source, subscriber, reserve));
    },
  };
  return [opening, ...options.inner, closing];
}

interface Weights {
  readonly isHeavy: (bytes: number) => boolean;
  readonly heavy: (bytes: number) => void;
}

class Session {
  readonly #options: CacheStagesOptions;
  readonly #weights: Weights;
  /** In order: all that have not gone on, and those of them that are not looked up, or not sent on. */
  readonly #entries: Entry[] = [];
  readonly #looking: Entry[] = [];
  #started = 0;
  #active = 0;
  #store: Promise<CacheStore> | undefined;
  #inside: Subscriber<Ticketed<unknown>> | undefined;
  #out: Subscriber<Ticketed<unknown>> | undefined;
  #reserve: () => number = () => 0;
  #sourceEnded = false;
  #innerEnded = false;
  #sending = false;
  #flushing = false;
  #closed = false;
  #saidUnkept = false;

  constructor(options: CacheStagesOptions, weights: Weights) {
    this.#options = options;
    this.#weights = weights;
  }

  open(source: Observable<Ticketed<unknown>>, inside: Subscriber<Ticketed<unknown>>): void {
    this.#inside = inside;
    inside.add(
      source.subscribe({
        next: ({ value, ticket }) => {
          const entry: Entry = {
            ticket,
            value,
            key: undefined,
            kept: undefined,
            looked: false,
            done: false,
            leaves: [],
            writing: false,
          };
          this.#entries.push(entry);
          this.#looking.push(entry);
          this.#look();
        },
        error: (error: unknown) => inside.error(error),
        complete: () => {
          this.#sourceEnded = true;
          this.#send();
        },
      }),
    );
  }

  close(
    source: Observable<Ticketed<unknown>>,
    out: Subscriber<Ticketed<unknown>>,
    reserve: () => number,
  ): void {
    this.#out = out;
    this.#reserve = reserve;
    out.add(() => this.#release());
    out.add(
      source.subscribe({
        next: ({ value, ticket }) => {
          if (ticket instanceof StandIn) ticket.made(value);
          else out.error(gathered(ticket.origin));
        },
        error: (error: unknown) => out.error(error),
        complete: () => {
          this.#innerEnded = true;
          this.#flush();
        },
      }),
    );
  }

  #notice(message: string, origin: Origin): void {
    this.#options.onNotice?.({ stage: NAME, origin, message, always: true });
  }

  #release(): void {
    this.#closed = true;
    void this.#store?.then((store) => store.close());
  }

  #look(): void {
    while (this.#active < LOOKUPS && this.#started < this.#looking.length) {
      const entry = this.#looking[this.#started++]!;
      this.#active += 1;
      const { origin } = entry.ticket;
      this.#store ??= this.#options.openStore((message) => this.#notice(message, origin));
      void this.#find(entry).finally(() => {
        entry.looked = true;
        this.#active -= 1;
        if (this.#closed) return;
        this.#send();
        this.#look();
      });
    }
  }

  async #find(entry: Entry): Promise<void> {
    const { value, ticket } = entry;
    try {
      entry.key = this.#options.keyOf(value, ticket.origin);
    } catch (error) {
      this.#unkept(error, ticket.origin);
      return;
    }
    const kept = keptOf(await (await this.#store!).get(entry.key));
    if (!kept || this.#closed) return;
    entry.kept = kept;
    const bytes = kept.leaves.reduce((sum, leaf) => sum + (leaf?.bytes ?? 0), 0);
    if (kept.heavy) for (const leaf of kept.leaves) this.#weights.heavy(leaf?.bytes ?? 0);
    if (bytes > 0) ticket.weigh(bytes);
  }

  /** Sends what is not known through the inner stages, as far as all before it is looked up. */
  #send(): void {
    if (this.#sending) return;
    this.#sending = true;
    while (this.#looking[0]?.looked) {
      const entry = this.#looking.shift()!;
      this.#started -= 1;
      if (entry.kept) {
        entry.done = true;
        this.#flush();
        continue;
      }
      const { ticket, value } = entry;
      // Its own, by which notices are told apart.
      const origin = { ...ticket.origin };
      entry.leaves = [new StandIn(ticket, origin, entry.leaves, () => this.#settled(entry, origin))];
      const [first] = entry.leaves;
      first!.siblings = entry.leaves;
      this.#inside?.next({ value, ticket: first! });
    }
    this.#sending = false;
    if (this.#sourceEnded && this.#looking.length === 0) this.#inside?.complete();
  }

  /** Something has become of a sample that was sent within. */
  #settled(entry: Entry, origin: Origin): void {
    if (entry.done || entry.writing || !entry.leaves.every(({ state }) => state !== 'open')) return;
    entry.writing = true;
    const write = this.#written(entry, origin);
    if (!write) {
      entry.done = true;
      this.#flush();
      return;
    }
    void write.finally(() => {
      entry.done = true;
      this.#flush();
    });
  }

  /** Writes down what was made of a sample, unless some of it was quarantined: then it is tried again each time. */
  #written({ key, leaves }: Entry, origin: Origin): Promise<void> | undefined {
    if (key === undefined || leaves.some(({ state }) => state === 'lost')) return undefined;
    const kept: Kept = {
      leaves: leaves.map(({ state, value, weight }) =>
        state === 'made' ? { value, ...(weight !== undefined && { bytes: weight }) } : null,
      ),
      notices: (this.#options.noticed.get(origin) ?? []).map(({ stage, message }) => ({ stage, message })),
      heavy: leaves.some(({ weight = 0 }) => this.#weights.isHeavy(weight)),
    };
    try {
      const record = recordOf(key, kept, NAME);
      return record && this.#store!.then((store) => store.put(record));
    } catch (error) {
      this.#unkept(error, origin);
      return undefined;
    }
  }

  #unkept(error: unknown, origin: Origin): void {
    if (this.#saidUnkept) return;
    this.#saidUnkept = true;
    this.#notice(`${messageOf(error)}; samples like it are made anew each time`, origin);
  }

  #flush(): void {
    const out = this.#out;
    if (this.#flushing || this.#closed || !out) return;
    this.#flushing = true;
    try {
      while (this.#entries[0]?.done) this.#leave(this.#entries.shift()!, out);
    } catch (error) {
      out.error(error);
    } finally {
      this.#flushing = false;
    }
    // What is neither done nor being written was lost within: the run's books say so.
    if (this.#innerEnded && !this.#entries.some(({ done, writing }) => done || writing)) out.complete();
  }

  #leave({ ticket, kept, leaves }: Entry, out: Subscriber<Ticketed<unknown>>): void {
    if (!kept) {
      for (const { state, value, real } of leaves) if (state === 'made') out.next({ value, ticket: real });
      return;
    }
    for (const notice of kept.notices) this.#options.onNotice?.({ ...notice, origin: ticket.origin });
    ticket.enter(NAME, this.#reserve());
    const { length } = kept.leaves;
    if (length === 0) return ticket.settle('dropped');
    const tickets = length === 1 ? [ticket] : ticket.split(length);
    kept.leaves.forEach((leaf, i) => {
      const own = tickets[i]!;
      if (!leaf) return own.settle('dropped');
      own.enter(NAME, this.#reserve());
      if (leaf.bytes !== undefined) own.weigh(leaf.bytes);
      out.next({ value: leaf.value, ticket: own });
    });
  }
}

/** Stands for a sample's ticket in the inner stages. */
class StandIn implements Ticket {
  state: 'open' | 'made' | 'dropped' | 'lost' = 'open';
  value: unknown;
  weight: number | undefined;

  constructor(
    readonly real: Ticket,
    readonly origin: Origin,
    public siblings: StandIn[],
    private readonly onSettled: () => void,
  ) {}

  get origins(): readonly Origin[] {
    return [this.origin];
  }

  get bytes(): number {
    return this.real.bytes;
  }

  get settled(): boolean {
    return this.real.settled;
  }

  made(value: unknown): void {
    this.value = value;
    this.become('made');
  }

  settle(outcome: 'trained' | 'dropped'): void {
    this.real.settle(outcome);
    this.become(outcome === 'dropped' ? 'dropped' : 'lost');
  }

  quarantine(stage: string, error: unknown): void {
    this.real.quarantine(stage, error);
    this.become('lost');
  }

  enter(stage: string, reserve?: number): void {
    this.real.enter(stage, reserve);
  }

  park(): void {
    this.real.park();
  }

  unpark(): void {
    this.real.unpark();
  }

  weigh(bytes: number): void {
    this.real.weigh(bytes);
    this.weight = bytes;
  }

  split(count: number): Ticket[] {
    const { siblings, origin, onSettled, real } = this;
    const [, ...others] = real.split(count);
    const own = others.map((other) => new StandIn(other, origin, siblings, onSettled));
    siblings.splice(siblings.indexOf(this) + 1, 0, ...own);
    return [this, ...own];
  }

  deliver(): void {
    this.real.deliver();
  }

  arrive(): boolean {
    const isNew = this.real.arrive();
    if (!isNew) this.become('lost');
    return isNew;
  }

  position(): FlowPosition {
    return this.real.position();
  }

  report(event: FlowEvent): void {
    this.real.report(event);
  }

  private become(state: StandIn['state']): void {
    this.state = state;
    this.onSettled();
  }
}

/** What was read, if it is what this file writes. */
function keptOf(value: unknown): Kept | undefined {
  const { leaves, notices, heavy } = (value ?? {}) as Partial<Record<keyof Kept, unknown>>;
  if (!Array.isArray(leaves) || !Array.isArray(notices) || typeof heavy !== 'boolean') return undefined;
  return value as Kept;
}

function gathered(origin: Origin): FlowError {
  return new FlowError({
    where: `${NAME}: ${origin.file} row ${origin.row}`,
    expected: 'stages that take samples one by one',
    received: 'several samples as one',
    remedy: 'put the stage that gathers them behind the cache',
  });
}
