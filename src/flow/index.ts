// Bounded streams of samples: permits weighed in bytes, tickets settled exactly once, RxJS operators in between.

export type * from './types.js';
export type { MapContext, MapOptions, ParallelOptions } from './options.js';
export { Pool } from './pool.js';
export { Ledger, type LedgerOptions } from './ledger.js';
export { gate, type Gate, type GateOptions } from './gate.js';
export { GroupTicket } from './group.js';
export { lift } from './lift.js';
export { map } from './map.js';
export { filter } from './filter.js';
export { flatMap, type FlatMapOptions } from './flat-map.js';
export { orderedMap, unorderedMap, type Mapped } from './ordered-map.js';
export { batch, type BatchOptions, type Collate } from './batch.js';
export type { BatchBy, FillRule, Filling } from './filling.js';
export { tee, type TeeOptions, type TeeSink } from './tee.js';
export { chain, stagesOf } from './chain.js';
export { takeSource } from './take.js';
export { repeatSource } from './repeat.js';
export { timeoutSource } from './source-timeout.js';
export { checkBounds, heldAtMost, type HeldAtMost } from './bounds.js';
export { runFlow } from './run.js';
