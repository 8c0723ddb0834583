// quarantine.parquet: the quarantined rows as a table, made of the journal in two passes, so that a few rows are in memory
// at a time. A column of a kind that Parquet has is of that kind; one of several is text.

import * as fs from 'node:fs';
import { ParquetWriter, fileWriter, schemaFromColumnData, type BasicType } from 'hyparquet-writer';
import type { Cell } from './quarantine-cells.js';
import type { JournalEntry } from './quarantine-journal.js';

/** A row group is written when its rows weigh so much, or are so many. */
const GROUP_BYTES = 2 ** 22;
const GROUP_ROWS = 2 ** 10;

interface Column {
  readonly name: string;
  readonly type: BasicType;
  readonly nullable: boolean;
  readonly of: (entry: JournalEntry) => unknown;
}

/** What is known of every row. `item` numbers the rows of the stream from 0, over epochs; `part` the samples of one. */
const KNOWN: readonly Column[] = [
  column('file', 'STRING', ({ file }) => file),
  column('row_group', 'INT32', ({ rowGroup }) => rowGroup),
  column('row', 'INT64', ({ row }) => BigInt(row)),
  column('stage', 'STRING', ({ stage }) => stage),
  column('error', 'STRING', ({ error }) => error),
  column('stream', 'STRING', ({ stream }) => stream),
  column('item', 'INT64', ({ item }) => BigInt(item)),
  column('part', 'INT32', ({ part }) => part),
  { ...column('step', 'INT64', ({ step }) => (step === undefined ? null : BigInt(step))), nullable: true },
  { ...column('left_out', 'STRING', ({ leftOut }) => leftOut?.join('; ') || null), nullable: true },
];

/** Writes the table, whole or not at all.
 *  @param entries reads the journal from its beginning, each time anew */
export function writeTable(path: string, entries: () => Iterable<JournalEntry>): void {
  const columns = [...KNOWN, ...ownColumns(entries())];
  const partial = `${path}.partial`;
  const schema = schemaFromColumnData({ columnData: columns.map((each) => ({ ...source(each), data: [] })) });
  const writer = new ParquetWriter({
    writer: fileWriter(partial),
    schema,
    statistics: false,
    createdBy: 'sluice',
  });
  let group: JournalEntry[] = [];
  let bytes = 0;
  const flush = (): void => {
    if (group.length === 0) return;
    const columnData = columns.map((each) => ({ ...source(each), data: group.map(each.of) }));
    void writer.write({ columnData, rowGroupSize: group.length }); // at once: this writer has no flush to wait for
    group = [];
    bytes = 0;
  };
  for (const entry of entries()) {
    group.push(entry);
    bytes += entry.bytes;
    if (group.length >= GROUP_ROWS || bytes >= GROUP_BYTES) flush();
  }
  flush();
  void writer.finish();
  const descriptor = fs.openSync(partial, 'r');
  try {
    fs.fsyncSync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
  fs.renameSync(partial, path);
}

function column(name: string, type: BasicType, of: Column['of']): Column {
  return { name, type, nullable: false, of };
}

function source({ name, type, nullable }: Column): { name: string; type: BasicType; nullable: boolean } {
  return { name, type, nullable };
}

/** The rows' own columns, in the order in which they first come. One that is called as one of ours gets another name. */
function ownColumns(entries: Iterable<JournalEntry>): Column[] {
  const kinds = new Map<string, Set<Cell[0]>>();
  for (const { cells } of entries) {
    for (const [name, cell] of Object.entries(cells ?? {})) {
      const known = kinds.get(name) ?? new Set();
      if (cell) known.add(cell[0]);
      kinds.set(name, known);
    }
  }
  const taken = new Set(KNOWN.map(({ name }) => name));
  return [...kinds].map(([name, found]) => {
    let free = name;
    while (taken.has(free) || (free !== name && kinds.has(free))) free = `own_${free}`;
    taken.add(free);
    const [kind, ...others] = found;
    const { type, read } = kind === undefined || others.length > 0 ? TEXT : READERS[kind];
    const of = ({ cells }: JournalEntry): unknown => {
      const cell = cells && Object.hasOwn(cells, name) ? cells[name] : null;
      return cell ? read(cell[1]) : null;
    };
    return { name: free, type, nullable: true, of };
  });
}

interface Reader {
  readonly type: BasicType;
  readonly read: (value: Cell[1]) => unknown;
}

const TEXT: Reader = { type: 'STRING', read: String };

const READERS: Readonly<Record<Cell[0], Reader>> = {
  text: TEXT,
  json: TEXT,
  double: { type: 'DOUBLE', read: Number },
  bool: { type: 'BOOLEAN', read: (value) => value },
  // Of more than 64 bits it wraps: whole numbers of Parquet and Arrow files have no more.
  int: { type: 'INT64', read: (value) => BigInt.asIntN(64, BigInt(value)) },
  date: { type: 'TIMESTAMP', read: (value) => new Date(Number(value)) },
  bytes: { type: 'BYTE_ARRAY', read: (value) => Buffer.from(String(value), 'base64') },
};
