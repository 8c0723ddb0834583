// Which columns of a file are read, and whether they are what the pipeline file expects.

import { DataError } from '../errors.js';
import { parseType, satisfies, typeText, type ColumnType } from './parquet-schema.js';

/** The columns to read: their names, or their names with the types that they must have (see `parseType`);
 *  all of the file's when undefined. */
export type ColumnChoice = readonly string[] | Readonly<Record<string, string>>;

/** The names of the chosen columns.
 *  @param types of all columns of the file
 *  @throws {DataError} on columns that are missing, of another type, or of a type that is not read */
export function chooseColumns(
  types: ReadonlyMap<string, ColumnType>,
  choice: ColumnChoice | undefined,
  path: string,
): ReadonlySet<string> {
  const names = choice === undefined ? [...types.keys()] : isNames(choice) ? choice : undefined;
  const expected = new Map(names?.map((name) => [name, 'any']) ?? Object.entries(choice!));
  const missing = [...expected.keys()].filter((name) => !types.has(name));
  if (missing.length > 0) {
    throw new DataError({
      where: path,
      expected: `column${missing.length > 1 ? 's' : ''} ${missing.join(', ')}`,
      received: `columns ${[...types].map(([name, type]) => `${name}: ${typeText(type)}`).join('; ')}`,
      remedy: 'choose among those that exist',
    });
  }
  for (const [name, text] of expected) {
    const type = types.get(name)!;
    if (satisfies(type, parseType(text)) && !typeText(type).includes('unsupported')) continue;
    const any = text === 'any';
    throw new DataError({
      where: `${path}, column ${name}`,
      expected: any ? 'a type that can be read' : text,
      received: typeText(type),
      remedy: any ? 'leave the column out by choosing others' : 'correct the expected type, or the data',
    });
  }
  return new Set(expected.keys());
}

/** @throws {DataError} when files that are read as one have other columns */
export function assertSameColumns(first: WithColumns, other: WithColumns): void {
  for (const name of new Set([...Object.keys(first.columns), ...Object.keys(other.columns)])) {
    const [expected, received] = [first.columns[name], other.columns[name]];
    if (expected === received) continue;
    throw new DataError({
      where: `${other.path}, column ${name}`,
      expected: `${expected ?? 'no such column'}, as in ${first.path}`,
      received: received ?? 'no such column',
      remedy: 'read files of one kind, or choose the columns that all of them have',
    });
  }
}

interface WithColumns {
  readonly path: string;
  /** Types as text, by name. */
  readonly columns: Readonly<Record<string, string>>;
}

/** The names alone; undefined for all. */
export function columnNames(choice: ColumnChoice | undefined): readonly string[] | undefined {
  return choice === undefined || isNames(choice) ? choice : Object.keys(choice);
}

function isNames(choice: ColumnChoice): choice is readonly string[] {
  return Array.isArray(choice);
}
