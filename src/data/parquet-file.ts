// One Parquet file: its footer read and checked once, its row groups read one at a time. Between reads no descriptor is
// open and no bytes of the file are kept.

import { parquetSchema } from 'hyparquet';
import type { DecodedArray, FileMetaData, RowGroup, SchemaTree } from 'hyparquet';
import { assembleNested } from 'hyparquet/src/assemble.js';
import { DEFAULT_PARSERS } from 'hyparquet/src/convert.js';
import { DataError } from '../errors.js';
import { chooseColumns, type ColumnChoice } from './column-choice.js';
import { OpenFile, type OpenOptions, type Stamp } from './open-file.js';
import { readFooter } from './parquet-footer.js';
import { Budget, BYTES_A_VALUE, decodingReason, type ColumnChunk } from './parquet-checks.js';
import { decodeChunk } from './parquet-pages.js';
import { boundsOf } from './parquet-bounds.js';
import { columnType, typeText } from './parquet-schema.js';
import { checkWhere, mayMatch, type ColumnBounds, type Conditions } from './where.js';

export interface RowGroupInfo {
  readonly numRows: number;
  /** Number of its first row in the file. */
  readonly firstRow: number;
  /** What its chosen columns take when decoded, as the footer tells: pages and 32 bytes a value. */
  readonly bytes: number;
  /** False where its statistics say that no row satisfies `where`. */
  readonly mayMatch: boolean;
}

/** How a file is opened. */
export interface ParquetOpenOptions extends OpenOptions {
  /** Its columns are read too. */
  readonly where?: Conditions | undefined;
}

/** The chosen columns of one row group: for each, a value a row. Byte arrays are views of the decoded pages. */
export interface ColumnData {
  readonly name: string;
  readonly values: ArrayLike<unknown>;
}

/** Bytes of a row group that cannot be decoded. The file is there and the rest of it may be sound. */
export class RowGroupError extends DataError {}

export class ParquetFile {
  /** For messages and origins. */
  readonly path: string;
  readonly rowGroups: readonly RowGroupInfo[];
  /** The chosen columns, in the file's order, with their types as text. */
  readonly columns: Readonly<Record<string, string>>;
  readonly #source: string;
  readonly #stamp: Stamp;
  readonly #trees: readonly SchemaTree[];
  readonly #chunks: readonly (readonly ColumnChunk[])[];

  private constructor(
    source: string,
    { path, stamp }: OpenFile,
    metadata: FileMetaData,
    trees: readonly SchemaTree[],
    where: Conditions | undefined,
  ) {
    this.path = path;
    this.#source = source;
    this.#stamp = stamp;
    this.#trees = trees;
    this.columns = Object.fromEntries(trees.map((tree) => [tree.element.name, typeText(columnType(tree))]));
    let firstRow = 0;
    const leaves = trees.flatMap(leafPaths);
    this.#chunks = metadata.row_groups.map((group, i) => rowGroupChunks(group, leaves, stamp.size, path, i));
    this.rowGroups = metadata.row_groups.map((group, i) => {
      const info = {
        numRows: Number(group.num_rows),
        firstRow,
        bytes: decodedBytes(group, this.#chunks[i]!),
        mayMatch: !where || mayMatch(where, (name) => groupBounds(group, name, trees)),
      };
      firstRow += info.numRows;
      return info;
    });
  }

  /** Reads the footer and closes the file again.
   *  @throws {DataError} when the file is missing, unreadable, not Parquet, truncated, or its columns are not the chosen
   *  @throws {ConfigError} when `where` does not fit its columns */
  static async open(
    source: string,
    columns?: ColumnChoice,
    options: ParquetOpenOptions = {},
  ): Promise<ParquetFile> {
    await using file = await OpenFile.open(source, 'Parquet file', options);
    const metadata = await readFooter(file);
    const { where } = options;
    const trees = chosenTrees(parquetSchema(metadata), columns, where, file.path);
    return new ParquetFile(source, file, metadata, trees, where);
  }

  /** Reads and decodes one row group; the descriptor is closed when this settles.
   *  @param maxBytes the most that decoding may take; a file that would need more is refused, not believed
   *  @throws {RowGroupError} when its bytes cannot be decoded; the reading can go on with another
   *  @throws {DataError} when the file is gone or has been written to since it was opened */
  async readRowGroup(index: number, maxBytes: number, signal: AbortSignal): Promise<ColumnData[]> {
    await using file = await OpenFile.open(this.#source, 'Parquet file', { signal });
    file.assertUnchanged(this.#stamp);
    const { numRows } = this.rowGroups[index]!;
    const budget = new Budget(maxBytes);

    const leaves = new Map<string, DecodedArray>();
    const chunks = this.#chunks[index]!;
    const read = file.gather(chunks);
    for (const [i, chunk] of chunks.entries()) {
      signal.throwIfAborted();
      const leaf = chunk.schemaPath.at(-1)!.path.join('.');
      const bytes = await this.#decoding(index, leaf, () => {
        budget.charge(chunk.size, 'a column chunk');
        return read(i);
      });
      leaves.set(
        leaf,
        await this.#decoding(index, leaf, () => decodeChunk(bytes, chunk, budget, signal), signal),
      );
    }

    const columns: ColumnData[] = [];
    for (const column of this.#trees) {
      const { name } = column.element;
      const values = await this.#decoding(index, name, () => {
        if (column.children.length > 0) assembleNested(leaves, column, DEFAULT_PARSERS);
        const found = leaves.get(name) ?? [];
        if (found.length !== numRows) throw new RangeError(`${found.length} values for ${numRows} rows`);
        return found;
      });
      columns.push({ name, values });
    }
    return columns;
  }

  async #decoding<T>(
    index: number,
    column: string,
    work: () => T | Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      if (signal?.aborted || cause instanceof DataError) throw cause;
      throw new RowGroupError(
        {
          where: `${this.path}, row group ${index}, column ${column}`,
          expected: 'pages that can be decoded',
          received: decodingReason(cause),
          remedy: 'the file is damaged here: fetch or write it again',
        },
        { cause },
      );
    }
  }
}

function chosenTrees(
  schema: SchemaTree,
  choice: ColumnChoice | undefined,
  where: Conditions | undefined,
  path: string,
): SchemaTree[] {
  const types = new Map(schema.children.map((column) => [column.element.name, columnType(column)]));
  checkWhere(where, types, path);
  const chosen = new Set([...chooseColumns(types, choice, path), ...Object.keys(where ?? {})]);
  return schema.children.filter(({ element }) => chosen.has(element.name));
}

function groupBounds(group: RowGroup, name: string, trees: readonly SchemaTree[]): ColumnBounds {
  const column = trees.find(({ element }) => element.name === name);
  const chunk = group.columns.find(({ meta_data }) => {
    const path = meta_data?.path_in_schema;
    return path?.length === 1 && path[0] === name;
  });
  return boundsOf(column, chunk?.meta_data, Number(group.num_rows));
}

/** For each leaf of a column, the way to it from the root. */
function leafPaths(column: SchemaTree): SchemaTree[][] {
  const root: SchemaTree = {
    children: [column],
    count: column.count + 1,
    element: { name: 'root' },
    path: [],
  };
  const ways = (node: SchemaTree): SchemaTree[][] =>
    node.children.length === 0 ? [[node]] : node.children.flatMap(ways).map((way) => [node, ...way]);
  return ways(column).map((way) => [root, ...way]);
}

function rowGroupChunks(
  group: RowGroup,
  leaves: readonly (readonly SchemaTree[])[],
  fileSize: number,
  path: string,
  index: number,
): ColumnChunk[] {
  const byPath = new Map(group.columns.map((column) => [column.meta_data?.path_in_schema.join('.'), column]));
  return leaves.map((schemaPath) => {
    const leaf = schemaPath.at(-1)!.path.join('.');
    const column = byPath.get(leaf);
    const meta = column?.meta_data;
    const start = Number(meta?.dictionary_page_offset || meta?.data_page_offset);
    const first = Math.min(start, Number(meta?.data_page_offset));
    const numValues = Number(meta?.num_values);
    const size = numValues === 0 ? 0 : Number(meta?.total_compressed_size);
    const fits =
      numValues === 0 || (numValues > 0 && first >= 4 && size >= 0 && first + size <= fileSize - 8);
    if (!meta || column.file_path || !fits || meta.type !== schemaPath.at(-1)!.element.type) {
      throw new DataError({
        where: `${path}, row group ${index}, column ${leaf}`,
        expected: `pages within the ${fileSize} bytes of the file`,
        received: !meta
          ? 'none'
          : column.file_path
            ? `pages in another file, "${column.file_path}"`
            : `${size} bytes at byte ${first}, ${numValues} values of type ${meta.type}`,
        remedy: 'the footer is damaged or of a kind that is not supported: write the file again',
      });
    }
    return { schemaPath, type: meta.type, codec: meta.codec, start: first, size, numValues };
  });
}

function decodedBytes({ columns }: RowGroup, chunks: readonly ColumnChunk[]): number {
  const chosen = new Set(chunks.map(({ schemaPath }) => schemaPath.at(-1)!.path.join('.')));
  let bytes = 0;
  for (const { meta_data } of columns) {
    if (!meta_data || !chosen.has(meta_data.path_in_schema.join('.'))) continue;
    bytes +=
      Math.max(0, Number(meta_data.total_uncompressed_size)) + Number(meta_data.num_values) * BYTES_A_VALUE;
  }
  return bytes;
}
