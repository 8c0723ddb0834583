// What a row group's statistics say of a column, as far as they can be believed.

import type { ColumnMetaData, SchemaElement, SchemaTree, Statistics } from 'hyparquet';
import { columnType } from './parquet-schema.js';
import type { ColumnBounds } from './where.js';

/** Types whose order the deprecated `min` and `max` were written in: by signed comparison. */
const SIGNED = /^(int\d+|float32|float64|bool|date|timestamp)$/;
const UNSIGNED = /^(uint\d+|string)$/;

/** Bounds of a column's values in a group of `numRows` rows; nothing where there are no statistics, they are NaN, or
 *  their order is not defined (binary, decimals, INT96). Text is bounded by bytes, which may be cut: still bounds. */
export function boundsOf(
  column: SchemaTree | undefined,
  meta: ColumnMetaData | undefined,
  numRows: number,
): ColumnBounds {
  const statistics = meta?.statistics;
  if (!column || !statistics || column.children.length > 0) return { numRows };
  if (column.element.repetition_type === 'REPEATED') return { numRows };
  const type = columnType(column).name;
  const numNulls = statistics.null_count === undefined ? undefined : Number(statistics.null_count);
  const [min, max] = limits(statistics, type, column.element);
  // One bound that is no number says that the writer did not mind NaN: neither is believed.
  const known = [min, max].every((limit) => !(typeof limit === 'number' && Number.isNaN(limit)));
  return known ? { min, max, numNulls, numRows } : { numNulls, numRows };
}

function limits(statistics: Statistics, type: string, element: SchemaElement): readonly unknown[] {
  const { min, max, min_value, max_value } = statistics;
  if (element.type === 'INT96' || element.type === 'FIXED_LEN_BYTE_ARRAY') return [];
  if (SIGNED.test(type)) return dated(type, [min_value ?? min, max_value ?? max]);
  return UNSIGNED.test(type) ? [min_value, max_value] : [];
}

/** Dates that were left as numbers are in units that are not known here. */
function dated(type: string, found: readonly unknown[]): readonly unknown[] {
  const isDate = type === 'date' || type === 'timestamp';
  return isDate ? found.map((limit) => (limit instanceof Date ? limit : undefined)) : found;
}
