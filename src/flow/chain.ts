// chain: several entries as one, typed from the first to the last. Also turns what users write into stages.

import type { Observable } from 'rxjs';
import { FlowError } from '../errors.js';
import { lift } from './lift.js';
import { stageOf } from './options.js';
import type { AnyEntry, AnyStage, FlowEntry, StageOf, Ticketed } from './types.js';

/** Joins up to eight entries to one stage. Where a list of entries leaves a lambda's parameter without a type,
 *  `chain` infers it from the entry before.
 *
 *  @example flow: [chain(map((row) => parse(row)), filter((parsed) => parsed.ok)), batch({ size: 8 }, pad)] */
export function chain<T, A, B = A, C = B, D = C, E = D, F = E, G = F, H = G>(
  a: FlowEntry<T, A>,
  b?: FlowEntry<A, B>,
  c?: FlowEntry<B, C>,
  d?: FlowEntry<C, D>,
  e?: FlowEntry<D, E>,
  f?: FlowEntry<E, F>,
  g?: FlowEntry<F, G>,
  h?: FlowEntry<G, H>,
): StageOf<T, H> {
  const entries = [a, b, c, d, e, f, g, h] as readonly (AnyEntry | undefined)[];
  const parts = stagesOf(entries, 'chain');
  return stageOf({
    name: parts.map((part) => part.name).join(' > '),
    parts,
    connect: (source) => {
      let flow: Observable<Ticketed<unknown>> = source;
      for (const part of parts) flow = part.connect(flow as Observable<Ticketed<never>>);
      return flow as Observable<Ticketed<H>>;
    },
  });
}

/** What users write, as stages: operators lifted, chains taken apart.
 *  @param where names the list for messages; a lifted operator without a name is called by its place: "flow[2]"
 *  @throws {FlowError} when an entry is neither stage nor operator */
export function stagesOf(entries: readonly (AnyEntry | undefined)[], where = 'flow'): AnyStage[] {
  return entries.flatMap((entry, i) => {
    if (entry === undefined) return [];
    if (typeof entry === 'function')
      return [lift<never, unknown>(entry, { name: entry.name || `${where}[${i}]` })];
    if (typeof entry === 'object' && entry !== null && typeof entry.connect === 'function') {
      return entry.parts ?? [entry];
    }
    throw new FlowError({
      where: `${where}[${i}]`,
      expected: 'a stage or an RxJS operator',
      received: entry === null ? 'null' : typeof entry,
      remedy: 'write an operator such as map(...), or a function from observable to observable',
    });
  });
}
