// When a batch is full: rules that say what each value takes of a batch, and whether that is still there.

import { FlowError } from '../errors.js';
import { checkCount, checkPositive } from './options.js';
import { at } from './transform.js';
import type { Origin } from './types.js';

/** When a batch is full: at a number of samples, before their cost would pass a limit, or by a rule of one's own. */
export type BatchBy<A> =
  | { readonly size: number }
  | {
      /** What a sample costs, such as its tokens: a number >= 0. */
      readonly cost: (value: A) => number;
      readonly limit: number;
      /** True counts each sample as the costliest of its batch (padding): limit >= number * largest. */
      readonly padded?: boolean;
      /** The most samples in a batch, however cheap. It lets the pool be checked before the run. */
      readonly maxItems?: number;
    }
  | FillRule<A>;

/** A rule of one's own. Which values a batch gathers must depend on them alone, and on their order: a run that goes on
 *  behind a batch makes the same ones from there. */
export interface FillRule<A, M = unknown> {
  /** What a value takes of its batch; called once for each. Throws for one that fits in no batch: it is quarantined. */
  readonly measure: (value: A, origin: Origin) => M;
  /** A new, empty batch. */
  readonly open: () => Filling<M>;
  /** The most samples in a batch. It lets the pool be checked before the run. */
  readonly maxItems?: number;
  /** The most bytes that all samples of a batch weigh together, which lets the pool be checked too. */
  readonly maxBytes?: number;
}

/** A batch being filled. */
export interface Filling<M> {
  /** Takes a value in. @returns its slot (such as the row of the batch), which `collate` is told; undefined, with nothing
   *  changed, when there is no room left for it */
  add(measure: M): number | undefined;
  /** Whether no value at all could be added. */
  readonly isFull: boolean;
}

/** @returns any way of saying it as a rule
 *  @throws {FlowError} when a number is none */
export function ruleOf<A>(name: string, by: BatchBy<A>): FillRule<A> {
  if ('size' in by) return bySize(name, by.size);
  if ('cost' in by) return byCost(name, by);
  if (by.maxItems !== undefined) checkCount(`${name}: maxItems`, by.maxItems);
  return by;
}

function bySize(name: string, size: number): FillRule<unknown, number> {
  checkCount(`${name}: size`, size);
  return { measure: () => 1, open: () => new CostFilling(size, false, Infinity), maxItems: size };
}

type ByCost<A> = Extract<BatchBy<A>, { readonly limit: number }>;

function byCost<A>(name: string, { cost, padded = false, maxItems, ...by }: ByCost<A>): FillRule<A, number> {
  const limit = checkPositive(`${name}: limit`, by.limit);
  if (maxItems !== undefined) checkCount(`${name}: maxItems`, maxItems);
  return {
    measure: (value, origin) => {
      const own = cost(value);
      if (own >= 0 && own <= limit) return own;
      throw new FlowError({
        where: at(name, origin),
        expected: `a sample that costs 0 to ${limit}`,
        received: String(own),
        remedy: 'raise the limit, or shorten or filter such samples before',
      });
    },
    open: () => new CostFilling(limit, padded, maxItems ?? Infinity),
    ...(maxItems === undefined ? {} : { maxItems }),
  };
}

class CostFilling implements Filling<number> {
  private number = 0;
  private total = 0;
  private largest = 0;

  constructor(
    private readonly limit: number,
    private readonly padded: boolean,
    private readonly maxItems: number,
  ) {}

  add(cost: number): number | undefined {
    const [number, total, largest] = [this.number + 1, this.total + cost, Math.max(this.largest, cost)];
    if (number > this.maxItems || (this.padded ? number * largest : total) > this.limit) return undefined;
    this.number = number;
    this.total = total;
    this.largest = largest;
    return 0;
  }

  get isFull(): boolean {
    const { number, total, largest } = this;
    return number === this.maxItems || (this.padded ? number * largest : total) === this.limit;
  }
}
