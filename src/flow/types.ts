// The words of the flow: sources of weighed items, tickets, stages, events. Types only.
// A sample's way: source -> gate (pool has room) -> ticket issued -> stages -> consumer -> ticket settled.

import type { Observable, OperatorFunction } from 'rxjs';
import type { Concurrency } from './concurrency.js';

/** Where an item came from: enough to find it again. */
export interface Origin {
  readonly file: string;
  readonly rowGroup: number;
  /** Row number in the whole file, from 0. */
  readonly row: number;
}

/** Where a source stands: JSON of its own making, which only that source reads. */
export type Cursor = unknown;

/** One item of a source. */
export interface SourceItem<T> {
  readonly value: T;
  /** What the item weighs in memory until it is settled, in bytes (at least 1 is charged). Where a stage makes it
   *  bigger, that stage's `itemBytes` says so. */
  readonly bytes: number;
  readonly origin: Origin;
  /** Where this item is: a source opened there gives it first, and all after it as it did before. */
  readonly cursor?: Cursor;
}

/** An item that the source could not read: it is counted and quarantined under the source's name, and the run goes on. */
export interface SourceFault {
  readonly error: unknown;
  readonly bytes: number;
  readonly origin: Origin;
  readonly cursor?: Cursor;
}

/** Where items come from. Opened once a run (once an epoch under `repeatSource`), pulled one at a time, only while the
 *  pool has room. Ending early aborts `signal`, then calls the iterator's `return` once. */
export interface Source<T> {
  readonly name: string;
  /** @param from where a run that is continued stood; only a source whose items have cursors is given one */
  readonly open: (signal: AbortSignal, from?: Cursor) => AsyncIterable<SourceItem<T> | SourceFault>;
  /** The most that one item weighs. Declared, it makes the pool's bound strict and lets a pool that is too small for the
   *  graph be refused before the run; otherwise the largest item seen so far is assumed. */
  readonly maxItemBytes?: number;
}

/** Where a stream stands behind a value, in JSON: `runFlow` goes on there when it is given it as `from`. Held against a
 *  run without a break: the values after it are the same, as long as no stage lets samples overtake each other. */
export interface FlowPosition {
  /** Items of the source before the one that the value's last sample is of. */
  readonly item: number;
  /** That item's, its file without the folder. Given, a source that stands at another item there is an error. */
  readonly origin?: Origin;
  /** That item's, where the source gives cursors; else it is found by counting. */
  readonly cursor?: Cursor;
  /** Samples of that item that are done. */
  readonly parts: number;
  /** All samples that are done, from the stream's beginning. */
  readonly done: Omit<LedgerCounts, 'trained'>;
}

/** What became of a sample. */
export type Outcome = 'trained' | 'dropped' | 'quarantined';

/** The duty to settle one sample, or a group of them, exactly once. Settling frees the permit. */
export interface Ticket {
  /** The origin of the sample (of a group: of its first member). */
  readonly origin: Origin;
  /** The origins of all samples behind this ticket, in order. */
  readonly origins: readonly Origin[];
  /** What the ticket holds of the pool. */
  readonly bytes: number;
  readonly settled: boolean;
  /** @throws {FlowError} when it is settled already */
  settle(outcome: 'trained' | 'dropped'): void;
  /** Settles as quarantined, and reports it: an event for each member.
   *  @throws {FlowError} when it is settled already */
  quarantine(stage: string, error: unknown): void;
  /** Says which stage has the sample now (a wait is blamed on it), and what later stages may need it to weigh for each
   *  sample: `weigh` keeps at least that. The run calls it before each stage. */
  enter(stage: string, reserve?: number): void;
  /** Says that the sample waits for later samples (an open batch). A stage that keeps tickets until more come must park
   *  them, or a pool too small for it would stall instead of failing with the numbers. A stage that lets them go by a
   *  timer must not. */
  park(): void;
  /** Ends `park`. */
  unpark(): void;
  /** Changes what the sample weighs. It may lift the pool over its bound, which then admits nothing until it sinks. */
  weigh(bytes: number): void;
  /** Turns one sample into `count` (>= 1) with the same origin, which share its weight; the first is this ticket. */
  split(count: number): Ticket[];
  /** Says that the consumer has it: nobody waits for it any more. The run calls it. */
  deliver(): void;
  /** Takes the sample's place in the stream's order: the first stage that gathers samples calls it for each as it comes,
   *  or else the run. False for a sample that was done before the run that this one continues: it is out of the books. */
  arrive(): boolean;
  /** Where the stream stands behind this sample (of a group: behind the last that was gathered for it), once it has
   *  arrived. */
  position(): FlowPosition;
  /** Passes an event to the run's `onEvent`. */
  report(event: FlowEvent): void;
}

/** A value on its way, with its ticket. */
export interface Ticketed<T> {
  readonly value: T;
  readonly ticket: Ticket;
}

/** What a stage tells the graph about itself, checked against the pool before a run. */
export interface StageTraits {
  /** Names the stage in quarantine events, waits and errors. */
  readonly name: string;
  /** The most inputs it keeps while it waits for more (1 where it keeps none). */
  readonly holdsItems?: number;
  /** The most bytes it keeps while it waits for more. Where `holdsItems` is declared too, what is less counts. */
  readonly holdsBytes?: number;
  /** The most inputs that one output gathers (a batch's size); 1 by default. */
  readonly gathers?: number;
  /** The most outputs that one input becomes; 1 by default. */
  readonly splits?: number;
  /** The most bytes that one output weighs for each sample in it, where it is more than the input weighed. It is
   *  reserved from admission on. It may grow while samples go by: then more is reserved for those that follow. */
  readonly itemBytes?: number;
  /** False where the order of outputs depends on timing. */
  readonly reproducible?: boolean;
  /** It only shows values to somebody: a forecast of a run leaves it out. */
  readonly onlooker?: boolean;
  /** How many samples it works on at once; told for forecasts, 1 where it is not. */
  readonly concurrency?: number;
  /** That number, where it is not fixed. */
  readonly tunes?: Concurrency;
  /** The text of the user's function in it, by which a changed stage is told. */
  readonly code?: string;
}

/** A step of the graph over ticketed values. Every ticket that enters leaves in a value, is settled, or is a member of a
 *  group ticket that leaves. An error of its observable stops the run. */
export interface Stage<A, B> extends StageTraits {
  /** @param reserve what later stages may need a sample to weigh, now */
  readonly connect: (source: Observable<Ticketed<A>>, reserve?: () => number) => Observable<Ticketed<B>>;
  /** The stages that a `chain` is made of. */
  readonly parts?: readonly AnyStage[];
}

/** A stage as its builders return it. The call signature is for the compiler alone; nobody can call it. TypeScript checks
 *  a call that returns something callable, such as an RxJS operator, after the other arguments: without the signature a
 *  stage behind an RxJS operator would be checked before it, and a lambda in it would get `unknown` for that operator's
 *  output. */
export interface StageOf<A, B> extends Stage<A, B> {
  (never: never): never;
}

/** A stage whose types are not known here. */
export type AnyStage = Stage<never, unknown>;

/** What users write in `flow: [...]`: a stage, or an RxJS operator, which is lifted (see `lift`). */
export type FlowEntry<A, B> = Stage<A, B> | OperatorFunction<A, B>;

/** An entry whose types are not known here. */
export type AnyEntry = FlowEntry<never, unknown>;

/** Up to eight entries, typed end to end. The last type parameter is what the consumer gets: give each parameter the one
 *  before it as default, `function pipeline<A = Row, B = A, C = B, ...>(spec: { flow: FlowEntries<Row, A, B, C, ...> })`,
 *  and a missing entry passes its type on. Where the last one is used elsewhere, write `NoInfer<H>`, or it is inferred
 *  there and checked against nothing. TypeScript infers a lambda's parameter in the first entry, when T is known
 *  there; in later entries annotate it, or put them in `chain(...)`, where all are inferred. */
export type FlowEntries<T, A = T, B = A, C = B, D = C, E = D, F = E, G = F, H = G> = readonly [
  FlowEntry<T, A>?,
  FlowEntry<A, B>?,
  FlowEntry<B, C>?,
  FlowEntry<C, D>?,
  FlowEntry<D, E>?,
  FlowEntry<E, F>?,
  FlowEntry<F, G>?,
  FlowEntry<G, H>?,
];

/** Counts of samples. At the end issued = trained + dropped + quarantined. */
export interface LedgerCounts {
  readonly issued: number;
  readonly trained: number;
  readonly dropped: number;
  readonly quarantined: number;
}

/** A stretch of waiting, blamed on the stage that held the lowest sample not yet delivered. */
export interface WaitShare {
  /** A stage's name, or the source's when no sample was on its way. */
  readonly stage: string;
  readonly ms: number;
  /** The sample that was waited for. */
  readonly origin?: Origin;
}

export type FlowEvent =
  | {
      readonly kind: 'quarantine';
      readonly origin: Origin;
      /** The number of its item in the whole stream, from 0, also where an earlier run is continued. */
      readonly item: number;
      /** Its number among the samples of its item that had arrived, from 1; 0 before it had. With `item` it tells what
       *  lies behind a position: that is told again when a run goes on from there. */
      readonly part: number;
      /** Its item's, where the source gives cursors. */
      readonly cursor: Cursor;
      readonly stage: string;
      readonly error: unknown;
    }
  /** An item bigger than the pool (or than its source declared: `limit`) was admitted, alone; or a value bigger than
   *  `deviceBytes` was handed to the consumer, alone. */
  | {
      readonly kind: 'oversize';
      readonly pool: 'host' | 'device';
      readonly origin: Origin;
      readonly bytes: number;
      readonly limit: number;
    }
  /** A tee's sink failed and is called no more. */
  | { readonly kind: 'detach'; readonly origin: Origin; readonly stage: string; readonly error: unknown }
  /** The consumer has waited for longer than `stallMs`, and still waits. Told again each time that the wait has doubled. */
  | ({ readonly kind: 'stall' } & WaitShare)
  /** The run is not reproducible: this stage lets samples overtake each other. */
  | { readonly kind: 'unordered'; readonly stage: string }
  /** Always the last event, before `runFlow` resolves or rejects. */
  | { readonly kind: 'end'; readonly summary: FlowSummary };

/** How a run went. */
export interface FlowSummary {
  /** `stopped` by the consumer, `cancelled` by the signal, `failed` (then `runFlow` rejects). */
  readonly ended: 'complete' | 'stopped' | 'cancelled' | 'failed';
  readonly ledger: LedgerCounts;
  /** The most bytes that were held at once, those with the consumer included. */
  readonly peakBytes: number;
  /** The most bytes that the consumer had at once. */
  readonly peakDeviceBytes: number;
  /** Items bigger than the pool or than declared, and values bigger than `deviceBytes`. */
  readonly oversize: number;
  /** Values whose `consume` resolved. */
  readonly consumed: number;
  /** Milliseconds during which the consumer had nothing to do. */
  readonly waitMs: number;
  /** `waitMs` by the stage to blame. */
  readonly waits: Readonly<Record<string, number>>;
  /** The ten longest waits for one row in one stage, longest first. */
  readonly slowest: readonly WaitShare[];
  /** What tuned itself, as it was at the end: how many samples a stage works on at once, and the pool's bytes. */
  readonly tuned: Readonly<Record<string, number>>;
  /** False when a stage lets samples overtake each other. */
  readonly reproducible: boolean;
}

/** What a consumer is told with each value. */
export interface ConsumeContext {
  /** Number of the delivery, from 0. */
  readonly index: number;
  /** The samples in the value, in order. */
  readonly origins: readonly Origin[];
  /** Where the stream stands behind this value. */
  readonly position: FlowPosition;
  /** Milliseconds that the consumer waited for this value. */
  readonly waitMs: number;
  readonly waits: readonly WaitShare[];
  /** Aborted when the run is cancelled or has failed elsewhere. */
  readonly signal: AbortSignal;
  /** Ends the run in good order: nothing more is delivered, what is on its way is dropped. */
  readonly stop: () => void;
}

/** What happened to a sample's ticket. */
export type TicketChange = 'issued' | 'entered' | 'weighed' | 'delivered' | 'settled';

/** Sees every change of every sample's ticket, as it happens: what it weighs and which stage has it. It is called within
 *  the flow, so it must be quick, must not throw, and settles nothing. */
export type FlowObserver = (ticket: ObservedTicket, change: TicketChange) => void;

/** A sample's ticket as an observer sees it. */
export interface ObservedTicket {
  readonly origin: Origin;
  /** Bytes that it holds of the pool. */
  readonly bytes: number;
  /** The stage that has it; the source's name before the first. */
  readonly stage: string;
  /** Number of its item of the source, from 0. Samples that were made of one item share it. */
  readonly sequence: number;
  readonly cursor?: Cursor;
  /** It waits for later samples in a stage. */
  readonly isParked: boolean;
  /** Once it is settled. */
  readonly outcome: Outcome | undefined;
}

export interface FlowOptions<T, A = T, B = A, C = B, D = C, E = D, F = E, G = F, H = G> {
  readonly source: Source<T>;
  readonly stages: FlowEntries<T, A, B, C, D, E, F, G, H>;
  /** The bound on the bytes of all samples that are not settled: between source and consumer, and with the consumer. */
  readonly poolBytes: number;
  /** With it the pool begins with `poolBytes` (or twice what the stages hold, if that is more), and may grow to this bound
   *  where the consumer waits while the pool is full. */
  readonly maxPoolBytes?: number | undefined;
  /** Takes one value; its samples are trained when the promise resolves. A rejection stops the run with that error.
   *  Annotate a lambda's parameter: TypeScript does not infer it from `stages` in the same object. */
  readonly consume: (value: H, context: ConsumeContext) => void | Promise<void>;
  /** Goes on behind a value of an earlier run of the same source and stages. */
  readonly from?: FlowPosition;
  /** How many `consume` calls may be open at once; 1 by default. Two overlap preparation with the device's step. */
  readonly inFlight?: number;
  /** The bound on the bytes of what the consumer has at once: a value is handed over only when there is room, one that
   *  is bigger alone, and reported. A part of `poolBytes`, not beside it. No bound but `inFlight` by default. */
  readonly deviceBytes?: number;
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: FlowEvent) => void;
  /** How long an ended run waits for open `consume` calls and for the source to close; 5000 by default. */
  readonly graceMs?: number;
  /** A wait of the consumer that lasts longer is told while it lasts, with the stage and the row that it is for;
   *  milliseconds, 30,000 by default, Infinity for never. */
  readonly stallMs?: number;
  readonly observer?: FlowObserver;
  /** Milliseconds, for the waits; `performance.now` by default. */
  readonly now?: () => number;
}
