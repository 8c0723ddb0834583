// Which modules an adapter is for, and with which rank and alpha: from a declaration and the model's module names.

import { ConfigError } from '../errors.js';
import { Linear, Module } from '../nn/index.js';
import type { AdapterConfig } from './config.js';
import { matcher, nearMisses } from './patterns.js';

/** A model's modules by the names that users know. */
export type NamedModules = ReadonlyMap<string, Module>;

/** One linear module to adapt. */
export interface Target {
  readonly name: string;
  readonly linear: Linear;
  readonly rank: number;
  readonly alpha: number;
}

export interface Selection {
  readonly targets: readonly Target[];
  /** Modules that learn whole. */
  readonly saved: NamedModules;
}

export interface SelectOptions {
  /** What short names stand for. */
  readonly parts: Readonly<Record<string, readonly string[]>>;
  /** Why a linear module cannot be adapted, if it cannot. */
  readonly refusal: (name: string) => string | undefined;
}

/** @throws {ConfigError} for a pattern that matches nothing, two that match one module, a rank that is larger than a matrix,
 *  and a module that would get two ranks, two alphas, or an adapter though it learns whole */
export function select(config: AdapterConfig, modules: NamedModules, options: SelectOptions): Selection {
  const { targets: given = ['text'], modulesToSave = [] } = config;
  const saved = savedModules(modulesToSave, modules);
  const chosen = new Map<string, Linear>();
  const by = new Map<string, string>();
  for (const pattern of given) {
    for (const [name, linear] of matching(pattern, modules, config.kind, options)) {
      const other = by.get(name);
      if (other !== undefined) throw overlap(config.kind, name, other, pattern);
      chosen.set(name, linear);
      by.set(name, pattern);
    }
  }
  for (const name of chosen.keys()) {
    const holder = [...saved.keys()].find((other) => name === other || name.startsWith(`${other}.`));
    if (holder !== undefined) throw learnsTwice(config.kind, name, holder);
  }
  const ranks = byPattern(`${config.kind}.rankPattern`, config.rankPattern, chosen);
  const alphas = byPattern(`${config.kind}.alphaPattern`, config.alphaPattern, chosen);
  const targets = Array.from(chosen, ([name, linear]): Target => {
    const rank = ranks.get(name) ?? config.rank;
    refuseLargeRank(config.kind, name, linear, rank);
    return { name, linear, rank, alpha: alphas.get(name) ?? config.alpha ?? config.rank };
  });
  return { targets, saved };
}

/** In the model's order. */
function matching(
  pattern: string,
  modules: NamedModules,
  where: string,
  { parts, refusal }: SelectOptions,
): [string, Linear][] {
  const tests = (Object.hasOwn(parts, pattern) ? (parts[pattern] ?? []) : [pattern]).map(matcher);
  const all = [...modules].filter(([name]) => tests.some((test) => test(name)));
  const linears = all.flatMap(([name, module]): [string, Linear][] =>
    module instanceof Linear ? [[name, module]] : [],
  );
  if (linears.length === 0) throw matchesNothing(where, 'targets', pattern, all.length > 0, modules);
  const refused = linears.map(([name]) => [name, refusal(name)] as const).filter(([, why]) => why);
  const [first] = refused;
  // Named, it is refused; swept up by a pattern that means others too, it is left out as if it were no linear.
  if (first && refused.length === linears.length) {
    throw new ConfigError({
      where: `${where}.targets '${pattern}'`,
      expected: 'modules that take an adapter',
      received: `${first[0]}, ${first[1]}`,
      remedy: 'leave it out',
    });
  }
  return linears.filter(([name]) => refusal(name) === undefined);
}

function savedModules(patterns: readonly string[], modules: NamedModules): NamedModules {
  const saved = new Map<string, Module>();
  for (const pattern of patterns) {
    const test = matcher(pattern);
    const all = [...modules].filter(
      ([name, module]) => test(name) && [...module.namedParameters()].length > 0,
    );
    if (all.length === 0) throw matchesNothing('adapter', 'modulesToSave', pattern, false, modules);
    for (const [name, module] of all) saved.set(name, module);
  }
  const isInside = (name: string): boolean => [...saved.keys()].some((other) => name.startsWith(`${other}.`));
  return new Map([...saved].filter(([name]) => !isInside(name)));
}

/** The value that each module gets by the one pattern that matches it. */
function byPattern(
  where: string,
  patterns: Readonly<Record<string, number>>,
  chosen: ReadonlyMap<string, Linear>,
): Map<string, number> {
  const found = new Map<string, { readonly value: number; readonly by: string }>();
  for (const [pattern, value] of Object.entries(patterns)) {
    const test = matcher(pattern);
    const names = [...chosen.keys()].filter(test);
    if (names.length === 0) {
      throw new ConfigError({
        where: `${where} '${pattern}'`,
        expected: 'a pattern that matches a target',
        received: 'one that matches none',
        remedy: `did you mean ${nearMisses(pattern, chosen.keys()).join(', ')}?`,
      });
    }
    for (const name of names) {
      const other = found.get(name);
      if (other && other.value !== value) {
        throw new ConfigError({
          where,
          expected: `one value for ${name}`,
          received: `${other.value} by '${other.by}' and ${value} by '${pattern}'`,
          remedy: 'make the patterns exclude each other',
        });
      }
      found.set(name, { value, by: pattern });
    }
  }
  return new Map(Array.from(found, ([name, { value }]) => [name, value]));
}

function refuseLargeRank(
  kind: string,
  name: string,
  { inFeatures, outFeatures }: Linear,
  rank: number,
): void {
  const most = Math.min(inFeatures, outFeatures);
  if (rank <= most) return;
  throw new ConfigError({
    where: `${kind}: rank of ${name}`,
    expected: `at most ${most}: its matrix is ${outFeatures} x ${inFeatures}`,
    received: String(rank),
    remedy: 'lower the rank, give it one of its own with rankPattern, or leave the module out of targets',
  });
}

function overlap(kind: string, name: string, one: string, other: string): ConfigError {
  return new ConfigError({
    where: `${kind}.targets`,
    expected: 'patterns of which one alone matches a module',
    received: `'${one}' and '${other}', which both match ${name}`,
    remedy: 'leave one out, or make them exclude each other',
  });
}

function learnsTwice(kind: string, name: string, holder: string): ConfigError {
  return new ConfigError({
    where: `${kind}: targets and modulesToSave`,
    expected: 'a module in one of them',
    received: `${name} in targets, and ${holder} in modulesToSave`,
    remedy: 'leave it out of one',
  });
}

function matchesNothing(
  where: string,
  key: string,
  pattern: string,
  isOtherKind: boolean,
  modules: NamedModules,
): ConfigError {
  const names = [...modules].filter(([, module]) => key !== 'targets' || module instanceof Linear);
  return new ConfigError({
    where: `${where}.${key} '${pattern}'`,
    expected:
      key === 'targets' ? 'a pattern that matches a linear module' : 'a pattern that matches a module',
    received: isOtherKind
      ? 'one that matches other modules only, such as convolutions'
      : 'one that matches nothing',
    remedy: `did you mean ${nearMisses(
      pattern,
      names.map(([name]) => name),
    ).join(', ')}?`,
  });
}
