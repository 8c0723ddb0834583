// Parameter groups: which rate and which decay a tensor has, by patterns over names or by lists of tensors.

import { ConfigError } from '../errors.js';
import { z } from '../schema.js';
import { Tensor } from '../tensor/index.js';
import { matcher, PATTERN, PATTERNS } from './patterns.js';

const rates = {
  /** In place of the optimizer's own; a schedule scales it alike. */
  lr: z.number().positive().optional(),
  /** The rate as a multiple of the optimizer's own. */
  lrRatio: z.number().positive().optional(),
  weightDecay: z.number().min(0).optional(),
};

const GROUP = z
  .strictObject({ match: PATTERN, ...rates })
  .refine(({ lr, lrRatio }) => lr === undefined || lrRatio === undefined, 'expected lr or lrRatio, not both');
const LIST = z.strictObject(rates);

/** What every optimizer takes beside what is its own. */
export const GROUP_OPTIONS = {
  /** Parameters by pattern, with a rate or a decay of their own. Each pattern must match, and no two the same. */
  groups: z.array(GROUP).optional(),
  /** Parameters that do not decay, by pattern. */
  noDecay: PATTERNS.optional(),
  /** What decays: 'all' as in PyTorch, or 'matrices': tensors of two or more dimensions, so neither norms nor biases. */
  decay: z.enum(['all', 'matrices']).default('all'),
};

/** A list of tensors with rates of its own. */
export interface TensorGroup {
  readonly params: Iterable<Tensor>;
  readonly lr?: number;
  readonly lrRatio?: number;
  readonly weightDecay?: number;
}

/** What an optimizer is made of: tensors, tensors with names, or groups of tensors. */
export type Parameters =
  Iterable<Tensor> | Iterable<readonly [name: string, tensor: Tensor]> | Iterable<TensorGroup>;

export interface GroupOptions {
  readonly lr: number;
  readonly weightDecay: number;
  readonly decay: 'all' | 'matrices';
  readonly groups?: readonly z.output<typeof GROUP>[] | undefined;
  readonly noDecay?: readonly string[] | undefined;
}

/** One tensor, and what holds for it. */
export interface Member {
  readonly tensor: Tensor;
  readonly name: string | undefined;
  /** Of the optimizer's rate. */
  readonly lrRatio: number;
  readonly weightDecay: number;
}

/** Finds what holds for each tensor.
 *  @throws {ConfigError} for a pattern that matches nothing, two that match the same, patterns where there are no names, or
 *  a tensor given twice */
export function membersOf(parameters: Parameters, options: GroupOptions, where: string): Member[] {
  const members = [...parameters].flatMap((entry) => ofEntry(entry, options, where));
  if (new Set(members.map(({ tensor }) => tensor)).size < members.length) {
    throw new ConfigError({
      where,
      expected: 'each tensor once',
      received: 'one that is given twice',
      remedy: 'leave out the second',
    });
  }
  const { groups = [], noDecay = [] } = options;
  const groupOf = groups.map(({ match }, i) => namesOf(members, match, `${where}: groups.${i}.match`));
  refuseOverlaps(groups, groupOf, where);
  const spared = new Set(
    noDecay.flatMap((pattern, i) => [...namesOf(members, pattern, `${where}: noDecay.${i}`)]),
  );
  return members.map((member) => {
    const group = groups.find((_, i) => groupOf[i]!.has(member.name!));
    const decays = (options.decay === 'all' || member.tensor.ndim >= 2) && !spared.has(member.name!);
    return {
      ...member,
      ...(group && { lrRatio: ratioOf(group, options.lr) }),
      weightDecay: decays ? (group?.weightDecay ?? member.weightDecay) : 0,
    };
  });
}

/** The names that a pattern matches. @throws {ConfigError} when there are none */
export function namesOf(
  members: readonly Pick<Member, 'name'>[],
  pattern: string,
  where: string,
): Set<string> {
  const names = members.flatMap(({ name }) => name ?? []);
  const matches = matcher(pattern);
  const found = new Set(names.filter((name) => matches(name)));
  if (found.size > 0) return found;
  throw new ConfigError({
    where: `${where} '${pattern}'`,
    expected: 'a pattern that matches a parameter that learns',
    received:
      names.length > 0 ? `one that matches none of ${names.length}: ${some(names)}` : 'tensors without names',
    remedy:
      names.length > 0
        ? 'correct the pattern or leave the entry out'
        : 'give [name, tensor] pairs, or groups of tensors',
  });
}

function ofEntry(
  entry: Tensor | readonly [string, Tensor] | TensorGroup,
  options: GroupOptions,
  where: string,
): Member[] {
  const plain = { lrRatio: 1, weightDecay: options.weightDecay };
  if (entry instanceof Tensor) return [{ tensor: entry, name: undefined, ...plain }];
  if (isNamed(entry)) return [{ tensor: entry[1], name: entry[0], ...plain }];
  const { params, ...own } = entry;
  const result = LIST.safeParse(own);
  if (!result.success) {
    const [issue] = result.error.issues;
    throw new ConfigError({
      where: `${where}: group ${issue?.path.join('.') ?? ''}`,
      expected: 'params, and lr or lrRatio above 0, weightDecay of 0 or more',
      received: JSON.stringify(own),
      remedy: 'correct the group',
    });
  }
  return Array.from(params, (tensor) => ({
    tensor,
    name: undefined,
    lrRatio: ratioOf(own, options.lr),
    weightDecay: own.weightDecay ?? options.weightDecay,
  }));
}

function isNamed(entry: readonly [string, Tensor] | TensorGroup): entry is readonly [string, Tensor] {
  return Array.isArray(entry);
}

function ratioOf(
  group: { readonly lr?: number | undefined; readonly lrRatio?: number | undefined },
  lr: number,
): number {
  return group.lr === undefined ? (group.lrRatio ?? 1) : group.lr / lr;
}

function refuseOverlaps(
  groups: readonly { readonly match: string }[],
  groupOf: readonly ReadonlySet<string>[],
  where: string,
): void {
  for (const [i, names] of groupOf.entries()) {
    for (const [j, others] of groupOf.slice(0, i).entries()) {
      const both = [...names].filter((name) => others.has(name));
      if (both.length === 0) continue;
      throw new ConfigError({
        where: `${where}: groups.${j}.match '${groups[j]!.match}' and groups.${i}.match '${groups[i]!.match}'`,
        expected: 'each parameter in one group',
        received: `${both.length} in both: ${some(both)}`,
        remedy: 'make one of the patterns narrower',
      });
    }
  }
}

function some(names: readonly string[]): string {
  return names.slice(0, 5).join(', ') + (names.length > 5 ? `, and ${names.length - 5} more` : '');
}
