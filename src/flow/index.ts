// Bounded streams of samples: permits weighed in bytes, tickets settled exactly once, RxJS operators in between.

export type * from './types.js';
import type { Observable, OperatorFunction } from 'rxjs';
import type { AnyEntry, FlowEntry, FlowOptions, FlowSummary, Origin, Source, Stage } from './types.js';

export interface MapContext {
  readonly signal: AbortSignal;
  readonly origin: Origin;
  readonly origins: readonly Origin[];
}
export interface MapOptions<B> {
  readonly name?: string;
  readonly itemBytes?: number;
  readonly weigh?: (value: B) => number;
}
export interface ParallelOptions<B> extends MapOptions<B> {
  readonly concurrency?: number;
  readonly timeoutMs?: number;
}
export type Mapped<B> = B | PromiseLike<B> | Observable<B>;

export declare function lift<A, B>(
  operator: OperatorFunction<A, B>,
  options?: ParallelOptions<B>,
): Stage<A, B>;
export declare function map<A, B>(
  fn: (value: A, context: MapContext) => B | PromiseLike<B>,
  options?: MapOptions<B>,
): Stage<A, B>;
export declare function filter<A, B extends A>(
  predicate: (value: A) => value is B,
  options?: { name?: string },
): Stage<A, B>;
export declare function filter<A>(predicate: (value: A) => boolean, options?: { name?: string }): Stage<A, A>;
export declare function flatMap<A, B>(
  fn: (value: A, context: MapContext) => Iterable<B>,
  options?: MapOptions<B> & { maxOutputs?: number },
): Stage<A, B>;
export declare function orderedMap<A, B>(
  fn: (value: A, context: MapContext) => Mapped<B>,
  options?: ParallelOptions<B>,
): Stage<A, B>;
export declare function unorderedMap<A, B>(
  fn: (value: A, context: MapContext) => Mapped<B>,
  options?: ParallelOptions<B>,
): Stage<A, B>;
export type BatchBy<A> =
  | { readonly size: number }
  | {
      readonly cost: (value: A) => number;
      readonly limit: number;
      readonly padded?: boolean;
      readonly maxItems?: number;
    };
export declare function batch<A, B>(
  by: BatchBy<A>,
  collate: (values: readonly A[], origins: readonly Origin[]) => B,
  options?: { name?: string; dropLast?: boolean; itemBytes?: number; weigh?: (value: B) => number },
): Stage<A, B>;
export interface TeeSink<A> {
  readonly name?: string;
  readonly write: (value: A, context: MapContext) => void | Promise<void>;
}
export declare function tee<A>(
  sink: TeeSink<A>,
  options?: { onError?: 'stop' | 'detach'; concurrency?: number },
): Stage<A, A>;
export declare function chain<T, A, B = A, C = B, D = C, E = D, F = E, G = F, H = G>(
  a: FlowEntry<T, A>,
  b?: FlowEntry<A, B>,
  c?: FlowEntry<B, C>,
  d?: FlowEntry<C, D>,
  e?: FlowEntry<D, E>,
  f?: FlowEntry<E, F>,
  g?: FlowEntry<F, G>,
  h?: FlowEntry<G, H>,
): Stage<T, H>;
export declare function takeSource<T>(source: Source<T>, count: number): Source<T>;
export declare function repeatSource<T>(source: Source<T>, epochs: number): Source<T>;
export declare function checkBounds(
  source: Source<unknown>,
  stages: readonly AnyEntry[],
  poolBytes: number,
): void;
export declare function runFlow<T, A, B = A, C = B, D = C, E = D, F = E, G = F, H = G>(
  options: FlowOptions<T, A, B, C, D, E, F, G, H>,
): Promise<FlowSummary>;
