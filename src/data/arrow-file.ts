// One Arrow file or stream: where its record batches lie, found once, and a reader that decodes them one at a time.
// Between reads no descriptor is open.

import { type Data, RecordBatchReader, type RecordBatchStreamReader, type Schema } from 'apache-arrow';
import { Footer as RawFooter } from 'apache-arrow/fb/footer';
import { Footer } from 'apache-arrow/ipc/metadata/file';
import { ByteBuffer } from 'flatbuffers';
import { DataError, messageOf, SluiceError } from '../errors.js';
import { registerCodecs } from './arrow-codecs.js';
import { damaged, readHeader, type Block, type Header } from './arrow-messages.js';
import { columnTypes, fieldsOf } from './arrow-schema.js';
import { verifyFooter } from './arrow-verify.js';
import { cellReader, type CellReader } from './arrow-values.js';
import { setField } from './cells.js';
import { chooseColumns, type ColumnChoice } from './column-choice.js';
import { foreignFormat } from './foreign-format.js';
import { OpenFile, type OpenOptions, type Stamp } from './open-file.js';
import { typeText } from './parquet-schema.js';
import { checkWhere, type Conditions } from './where.js';

export interface BatchInfo {
  readonly block: Block;
  /** The dictionaries that stand when the batch is read. The same list where they have not changed. */
  readonly dictionaries: readonly Block[];
  readonly numRows: number;
  /** Number of its first row in the file. */
  readonly firstRow: number;
  /** What it takes when decoded, columns that are not chosen among it. */
  readonly bytes: number;
}

/** Reads a batch's row as an object of views. */
export type RowReader = (row: number) => Record<string, unknown>;

/** Bytes of a record batch that cannot be decoded. The file is there and the rest of it may be sound. */
export class BatchError extends DataError {}

const MAGIC = 'ARROW1';

/** Where everything lies in a file. */
interface Layout {
  readonly format: 'file' | 'stream';
  readonly schema: Block;
  readonly batches: readonly BatchInfo[];
  /** Of the largest set of dictionaries that stand together. */
  readonly dictionaryBytes: number;
}

export class ArrowFile {
  readonly path: string;
  readonly format: 'file' | 'stream';
  readonly batches: readonly BatchInfo[];
  readonly dictionaryBytes: number;
  /** The chosen columns, in the file's order, with their types as text. */
  readonly columns: Readonly<Record<string, string>>;
  readonly stamp: Stamp;
  readonly #source: string;
  readonly #schema: Block;
  readonly #cells: readonly { readonly name: string; readonly column: number; readonly read: CellReader }[];

  private constructor(
    source: string,
    file: OpenFile,
    layout: Layout,
    schema: Schema,
    choice: ColumnChoice | undefined,
    where: Conditions | undefined,
  ) {
    this.#source = source;
    this.path = file.path;
    this.stamp = file.stamp;
    this.format = layout.format;
    this.batches = layout.batches;
    this.dictionaryBytes = layout.dictionaryBytes;
    this.#schema = layout.schema;
    const types = columnTypes(schema, file.path);
    checkWhere(where, types, file.path);
    const chosen = new Set([...chooseColumns(types, choice, file.path), ...Object.keys(where ?? {})]);
    this.columns = Object.fromEntries([...chosen].map((name) => [name, typeText(types.get(name)!)]));
    this.#cells = fieldsOf(schema.fields).flatMap(({ name, type }, column) =>
      chosen.has(name) ? [{ name, column, read: cellReader(type) }] : [],
    );
  }

  /** Reads the headers of all messages and closes the file again.
   *  @throws {DataError} when the file is missing, unreadable, not Arrow, truncated, or its columns are not the chosen */
  static async open(
    source: string,
    columns?: ColumnChoice,
    options: OpenOptions & { readonly where?: Conditions | undefined } = {},
  ): Promise<ArrowFile> {
    registerCodecs();
    await using file = await OpenFile.open(source, 'Arrow file', options);
    const layout = await readLayout(file);
    const bytes = await file.read(layout.schema.start, layout.schema.length);
    try {
      return new ArrowFile(
        source,
        file,
        layout,
        RecordBatchReader.from(bytes).open().schema,
        columns,
        options.where,
      );
    } catch (cause) {
      if (cause instanceof SluiceError) throw cause;
      throw damaged(file, `a schema that cannot be read (${messageOf(cause)})`, cause);
    }
  }

  /** A reader of the file's batches, which keeps the dictionaries of the last batch. */
  batchReader(): (index: number, signal: AbortSignal) => Promise<RowReader> {
    let feed: Feed | undefined;
    return async (index, signal) => {
      await using file = await OpenFile.open(this.#source, 'Arrow file', { signal });
      file.assertUnchanged(this.stamp);
      const { block, dictionaries, numRows } = this.batches[index]!;
      try {
        if (feed?.dictionaries !== dictionaries) {
          feed = new Feed(dictionaries);
          for (const { start, length } of [this.#schema, ...dictionaries]) {
            signal.throwIfAborted();
            feed.queue.push(await file.read(start, length));
          }
        }
        signal.throwIfAborted();
        feed.queue.push(await file.read(block.start, block.length));
        const { children } = feed.next(numRows);
        return (row) => this.#rowOf(children, row);
      } catch (cause) {
        feed = undefined; // what it has taken in is not known
        if (signal.aborted || cause instanceof DataError) throw cause; // what a server refuses is no damage
        throw new BatchError(
          {
            where: `${this.path}, record batch ${index}`,
            expected: 'buffers that can be decoded',
            received: messageOf(cause),
            remedy: 'the file is damaged here: fetch or write it again',
          },
          { cause },
        );
      }
    };
  }

  #rowOf(columns: readonly Data[], row: number): Record<string, unknown> {
    const cells: Record<string, unknown> = {};
    for (const { name, column, read } of this.#cells) setField(cells, name, read(columns[column]!, row));
    return cells;
  }
}

/** Messages that are handed to the library's reader one by one: a stream that holds nothing but the batches wanted. */
class Feed {
  readonly queue: Uint8Array[] = [];
  #reader: RecordBatchStreamReader | undefined;

  constructor(readonly dictionaries: readonly Block[]) {}

  next(numRows: number): Data {
    this.#reader ??= RecordBatchReader.from(this.#chunks()).open({ autoDestroy: false });
    const next = this.#reader.next();
    if (next.done) throw new Error('no record batch');
    const { data } = next.value as { readonly data: Data };
    if (data.length !== numRows) throw new RangeError(`${data.length} rows for ${numRows}`);
    return data;
  }

  /** The library asks for more than it needs when what it has is just enough: it is given nothing, once. */
  *#chunks(): Generator<Uint8Array> {
    for (let asked = 0; asked < 2;) {
      const chunk = this.queue.shift();
      asked = chunk ? 0 : asked + 1;
      yield chunk ?? new Uint8Array();
    }
  }
}

async function readLayout(file: OpenFile): Promise<Layout> {
  const { size } = file.stamp;
  const head = await file.read(0, Math.min(size, 16));
  const foreign = foreignFormat(head);
  if (size === 0 || foreign) {
    throw new DataError({
      where: file.path,
      expected: 'an Arrow file or stream',
      received: foreign?.name ?? 'an empty file',
      remedy: foreign?.remedy ?? 'name Arrow files only, or write it again',
    });
  }
  if (latin1(head.subarray(0, 6)) === MAGIC) return readFileLayout(file);
  const looksLikeStream = head.length >= 8 && new DataView(head.buffer).getInt32(0, true) === -1;
  const first = looksLikeStream ? await readHeader(file, 0, size) : await oldStream(file);
  if (first?.kind !== 'schema') {
    throw new DataError({
      where: file.path,
      expected: 'an Arrow file or stream, which begins with "ARROW1" or a schema',
      received: `${size} bytes that begin with ${JSON.stringify(latin1(head.subarray(0, 4)))}`,
      remedy: 'name Arrow files only, or convert this one',
    });
  }
  const headers: Header[] = [];
  for (let at = first.block.length; ;) {
    const header = await readHeader(file, at, size);
    if (!header) break;
    headers.push(header);
    at += header.block.length;
  }
  return layoutOf(file, 'stream', first.block, headers);
}

/** A stream of before Arrow 0.15, or no Arrow at all: any four bytes may look like a length. */
async function oldStream(file: OpenFile): Promise<Header | undefined> {
  return readHeader(file, 0, file.stamp.size).catch(() => undefined);
}

async function readFileLayout(file: OpenFile): Promise<Layout> {
  const { size } = file.stamp;
  const tail = size < 26 ? new Uint8Array(10) : await file.read(size - 10, 10);
  const footerBytes = new DataView(tail.buffer).getInt32(0, true);
  if (latin1(tail.subarray(4)) !== MAGIC || footerBytes <= 0 || footerBytes > size - 18) {
    throw new DataError({
      where: file.path,
      expected: `a footer and "${MAGIC}" at its end`,
      received: `${size} bytes that end otherwise`,
      remedy: 'it is truncated: fetch or write it again',
    });
  }
  const end = size - 10 - footerBytes;
  let blocks: { readonly offset: number }[];
  try {
    const bytes = await file.read(end, footerBytes);
    verifyFooter(RawFooter.getRootAsFooter(new ByteBuffer(bytes)), footerBytes);
    const footer = Footer.decode(bytes);
    // Both kinds in the order of the file, in which they were written.
    blocks = [...footer.dictionaryBatches(), ...footer.recordBatches()];
  } catch (cause) {
    throw damaged(file, `a footer that cannot be read (${messageOf(cause)})`, cause);
  }
  const schema = await readHeader(file, 8, end);
  if (schema?.kind !== 'schema') throw damaged(file, 'no schema at its beginning');
  const headers: Header[] = [];
  for (const offset of blocks.map((block) => block.offset).sort((a, b) => a - b)) {
    if (!(offset >= 8 && offset < end)) throw damaged(file, `a footer that points to byte ${offset}`);
    const header = await readHeader(file, offset, end);
    if (!header) throw damaged(file, `a footer that points to no message, at byte ${offset}`);
    headers.push(header);
  }
  // A file's dictionaries hold for all of its batches, wherever they lie.
  const inOrder = [...headers].sort((a, b) => Number(a.kind === 'batch') - Number(b.kind === 'batch'));
  return layoutOf(file, 'file', schema.block, inOrder);
}

function layoutOf(
  file: OpenFile,
  format: 'file' | 'stream',
  schema: Block,
  headers: readonly Header[],
): Layout {
  const standing = new Map<bigint, { readonly blocks: readonly Block[]; readonly bytes: number }>();
  let dictionaries: readonly Block[] | undefined;
  let dictionaryBytes = 0;
  let firstRow = 0;
  const batches: BatchInfo[] = [];
  for (const header of headers) {
    if (header.kind === 'dictionary') {
      const before = header.isDelta ? standing.get(header.id) : undefined;
      const blocks = [...(before?.blocks ?? []), header.block];
      standing.set(header.id, { blocks, bytes: (before?.bytes ?? 0) + header.bytes });
      dictionaries = undefined;
    } else if (header.kind === 'batch') {
      if (!dictionaries) {
        const sets = [...standing.values()];
        dictionaries = sets.flatMap(({ blocks }) => blocks).sort((a, b) => a.start - b.start);
        dictionaryBytes = Math.max(
          dictionaryBytes,
          sets.reduce((sum, { bytes }) => sum + bytes, 0),
        );
      }
      const { block, numRows, bytes } = header;
      batches.push({ block, dictionaries, numRows, firstRow, bytes });
      firstRow += numRows;
    } else {
      throw damaged(file, `a message that is neither batch nor dictionary at byte ${header.block.start}`);
    }
  }
  return { format, schema, batches, dictionaryBytes };
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}
