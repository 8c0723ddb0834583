// Predicates over rows as plain data: `{ split: 'train', score: { gte: 0.5 } }`. All conditions must hold. Null matches no
// condition but `null` and `notNull: false`; NaN matches `ne` alone; text is compared by its UTF-8 bytes, as files do.

import { ConfigError } from '../errors.js';
import { z } from '../schema.js';
import { BadCell } from './cells.js';
import type { ColumnType } from './parquet-schema.js';

export type WhereValue = string | number | bigint | boolean | Date;

/** Conditions of one column, which must all hold. */
export interface WhereOps {
  readonly eq?: WhereValue;
  readonly ne?: WhereValue;
  readonly gt?: WhereValue;
  readonly gte?: WhereValue;
  readonly lt?: WhereValue;
  readonly lte?: WhereValue;
  readonly in?: readonly WhereValue[];
  /** True for rows that have the value, false for those that do not. */
  readonly notNull?: boolean;
}

/** Conditions by column: a value that it must be, null, or operators. */
export type Where = Readonly<Record<string, WhereValue | null | WhereOps>>;

const value = z.union([z.string(), z.number(), z.bigint(), z.boolean(), z.date()]);
const ops = z
  .strictObject({
    ...{ eq: value, ne: value, gt: value, gte: value, lt: value, lte: value },
    in: z.array(value).min(1),
    notNull: z.boolean(),
  })
  .partial()
  .refine((given) => Object.keys(given).length > 0, 'expected a condition, such as { gte: 0.5 }');

/** The schema of the option. Its output has operators throughout. */
export const WHERE = z
  .record(z.string(), z.union([z.null(), value, ops]))
  .refine((given) => Object.keys(given).length > 0, 'expected a condition of at least one column')
  .transform((given): Conditions =>
    Object.fromEntries(
      Object.entries(given).map(([name, asked]): [string, WhereOps] => {
        if (asked === null) return [name, { notNull: false }];
        const isValue = typeof asked !== 'object' || asked instanceof Date;
        return [name, isValue ? { eq: asked } : asked];
      }),
    ),
  )
  .optional();

export type Conditions = Readonly<Record<string, WhereOps>>;

/** What is known of a column's values in a row group. */
export interface ColumnBounds {
  /** No value is smaller; strings as UTF-8 bytes. Undefined where it is not known. */
  readonly min?: unknown;
  readonly max?: unknown;
  readonly numNulls?: number | undefined;
  readonly numRows: number;
}

/** Whether a row satisfies all conditions. @throws {Error} where a cell of theirs cannot be read */
export function satisfiesWhere(conditions: Conditions, cell: (column: string) => unknown): boolean {
  return Object.entries(conditions).every(([name, asked]) => {
    const given = cell(name) ?? null;
    if (given instanceof BadCell) throw new Error(`column ${name}: ${given.reason}`);
    return holds(asked, given);
  });
}

function holds({ eq, ne, gt, gte, lt, lte, in: among, notNull }: WhereOps, cell: unknown): boolean {
  if (notNull === false) return cell === null && eq === undefined && among === undefined;
  if (cell === null) return false;
  const order = (to: WhereValue): number => compare(cell, to);
  return (
    (eq === undefined || order(eq) === 0) &&
    (ne === undefined || order(ne) !== 0) &&
    (gt === undefined || order(gt) > 0) &&
    (gte === undefined || order(gte) >= 0) &&
    (lt === undefined || order(lt) < 0) &&
    (lte === undefined || order(lte) <= 0) &&
    (among === undefined || among.some((each) => order(each) === 0))
  );
}

/** False where no row of the group can satisfy the conditions; whatever is not known may. */
export function mayMatch(conditions: Conditions, boundsOf: (column: string) => ColumnBounds): boolean {
  return Object.entries(conditions).every(([name, asked]) => {
    const { min, max, numNulls, numRows } = boundsOf(name);
    if (asked.notNull === false) return numNulls !== 0;
    if (numNulls === numRows && numRows > 0) return false;
    // Comparisons with what is not known, or of another kind, are NaN, which is neither below nor above.
    const isBelow = (to: WhereValue): boolean => compare(max, to) < 0;
    const isAbove = (to: WhereValue): boolean => compare(min, to) > 0;
    const isOutside = (to: WhereValue): boolean => isBelow(to) || isAbove(to);
    const { eq, gt, gte, lt, lte, in: among } = asked;
    return !(
      (eq !== undefined && isOutside(eq)) ||
      (among !== undefined && among.every(isOutside)) ||
      (gt !== undefined && compare(max, gt) <= 0) ||
      (gte !== undefined && isBelow(gte)) ||
      (lt !== undefined && compare(min, lt) >= 0) ||
      (lte !== undefined && isAbove(lte))
    );
  });
}

/** Below 0, 0 or above, as `a` lies to `b`; NaN for what has no order. */
function compare(a: unknown, b: WhereValue): number {
  if (isNumeric(a) && isNumeric(b)) return a < b ? -1 : a > b ? 1 : a == b ? 0 : NaN;
  if (a instanceof Date && b instanceof Date) return a.getTime() - b.getTime();
  if (typeof a === 'boolean' && typeof b === 'boolean') return Number(a) - Number(b);
  if (typeof b !== 'string') return NaN;
  if (typeof a === 'string') return a === b ? 0 : Buffer.compare(Buffer.from(a), Buffer.from(b));
  return a instanceof Uint8Array ? Buffer.compare(a, Buffer.from(b)) : NaN;
}

function isNumeric(value: unknown): value is number | bigint {
  return typeof value === 'number' || typeof value === 'bigint';
}

/** Holds conditions against a file's columns.
 *  @throws {ConfigError} on a column that there is not, and values that are none of its type; all of them */
export function checkWhere(
  conditions: Conditions | undefined,
  types: ReadonlyMap<string, ColumnType>,
  path: string,
): void {
  const faults = Object.entries(conditions ?? {}).flatMap(([name, asked]) => {
    const type = types.get(name);
    const where = `${path}: where.${name}`;
    const fault = (expected: string, received: string, remedy: string) =>
      new ConfigError({ where, expected, received, remedy }).message;
    if (!type) {
      return [
        fault('a column of the file', 'none of that name', `choose among ${[...types.keys()].join(', ')}`),
      ];
    }
    const { notNull: _notNull, in: among = [], ...single } = asked;
    const given: readonly (WhereValue | undefined)[] = [...Object.values(single), ...among];
    const values = given.filter((each) => each !== undefined);
    const kind = KINDS.find(([pattern]) => pattern.test(type.name));
    if (!kind && values.length > 0) {
      return [
        fault(
          `notNull alone for a column of type ${type.name}`,
          'a comparison',
          'filter in the flow instead',
        ),
      ];
    }
    return values
      .filter((each) => !kind![2](each))
      .map((each) => fault(`${kind![1]}, as the column is (${type.name})`, shown(each), 'correct the value'));
  });
  if (faults.length > 0) throw new ConfigError(faults.join('\n'));
}

type Kind = readonly [types: RegExp, words: string, is: (value: WhereValue) => boolean];

const KINDS: readonly Kind[] = [
  [/^string$/, 'text', (each) => typeof each === 'string'],
  [/^(u?int\d+|float\d+|decimal)$/, 'a number', isNumeric],
  [/^bool$/, 'true or false', (each) => typeof each === 'boolean'],
  [/^(date|timestamp)$/, 'a Date', (each) => each instanceof Date],
];

function shown(each: WhereValue): string {
  if (each instanceof Date) return `the Date ${String(each)}`;
  return typeof each === 'string' ? JSON.stringify(each.slice(0, 60)) : `${String(each)} (a ${typeof each})`;
}
