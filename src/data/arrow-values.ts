// Cells of Arrow columns as plain values: those that Parquet's columns give. What lies outside its buffer, or is no
// UTF-8, becomes a `BadCell`, so that one row is lost and not the batch.

import { type Data, DataType, DateUnit, Precision, TimeUnit, UnionMode, type Vector } from 'apache-arrow';
import { uint16ToFloat64 } from 'apache-arrow/util/math';
import { membersOf, type Member } from './arrow-schema.js';
import { BadCell, setField } from './cells.js';

/** Reads the value at a place of a column's data; byte arrays are views of it. */
export type CellReader = (data: Data, index: number) => unknown;

type Numbers = ArrayLike<number | bigint>;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A reader of columns of this type. */
export function cellReader(type: DataType): CellReader {
  const read = presentReader(type);
  // A union has no validity of its own: its members have.
  if (DataType.isUnion(type)) return read;
  return (data, index) => (data.getValid(index) ? read(data, index) : null);
}

function presentReader(type: DataType): CellReader {
  if (DataType.isNull(type)) return () => null;
  if (DataType.isDictionary(type)) return dictionaryReader(type.dictionary as DataType);
  if (DataType.isInt(type) || DataType.isDuration(type) || DataType.isTime(type)) return numberAt;
  if (DataType.isFloat(type)) {
    if (type.precision !== Precision.HALF) return numberAt;
    return (data, index) => mapNumber(numberAt(data, index), (half) => uint16ToFloat64(Number(half)));
  }
  if (DataType.isBool(type)) return bitAt;
  if (DataType.isDecimal(type)) return decimalReader(type.scale, type.bitWidth / 32);
  if (DataType.isDate(type)) {
    const ms = type.unit === DateUnit.DAY ? 86_400_000 : 1;
    return (data, index) => mapNumber(numberAt(data, index), (value) => dateOf(Number(value) * ms));
  }
  if (DataType.isTimestamp(type)) return timestampReader(type.unit);
  if (DataType.isUtf8(type) || DataType.isLargeUtf8(type))
    return (data, index) => textOf(bytesAt(data, index));
  if (DataType.isBinary(type) || DataType.isLargeBinary(type)) return bytesAt;
  if (DataType.isUtf8View(type)) return (data, index) => textOf(viewedBytesAt(data, index));
  if (DataType.isBinaryView(type)) return viewedBytesAt;
  if (DataType.isFixedSizeBinary(type)) return fixedBytesReader(type.byteWidth);
  if (DataType.isList(type) || DataType.isLargeList(type)) return listReader(membersOf(type)[0]!.type);
  if (DataType.isFixedSizeList(type)) return fixedListReader(membersOf(type)[0]!.type, type.listSize);
  if (DataType.isMap(type)) return mapReader(membersOf(type)[0]!.type);
  if (DataType.isStruct(type)) return structReader(type);
  if (DataType.isUnion(type)) return unionReader(membersOf(type), type.mode === UnionMode.Dense);
  throw new TypeError('no values of this type'); // refused with the schema
}

function numberAt({ values }: Data, index: number): unknown {
  return (values as Numbers)[index] ?? outside();
}

function outside(): BadCell {
  return new BadCell('a place outside its buffer');
}

function mapNumber(value: unknown, map: (value: number | bigint) => unknown): unknown {
  return value instanceof BadCell ? value : map(value as number | bigint);
}

function bitAt({ values, offset }: Data, index: number): unknown {
  const byte = (values as Uint8Array)[(offset + index) >> 3];
  return byte === undefined ? outside() : ((byte >> ((offset + index) & 7)) & 1) === 1;
}

function dateOf(ms: number): Date | BadCell {
  const date = new Date(ms);
  return Number.isNaN(date.getTime())
    ? new BadCell(`a time ${ms} ms from 1970, beyond what Date holds`)
    : date;
}

function timestampReader(unit: TimeUnit): CellReader {
  const perMs = { [TimeUnit.MICROSECOND]: 1000n, [TimeUnit.NANOSECOND]: 1_000_000n }[unit as number];
  const scale = unit === TimeUnit.SECOND ? 1000 : 1;
  return (data, index) =>
    mapNumber(numberAt(data, index), (value) => {
      if (perMs === undefined) return dateOf(Number(value) * scale);
      const ticks = BigInt(value);
      const floor = ticks / perMs - (ticks < 0n && ticks % perMs !== 0n ? 1n : 0n);
      return dateOf(Number(floor));
    });
}

/** As the nearest double, as Parquet's decimals are. */
function decimalReader(scale: number, words: number): CellReader {
  return ({ values }, index) => {
    const at = index * words;
    const limbs = values as Uint32Array;
    if (at + words > limbs.length) return outside();
    let unscaled = BigInt(limbs[at + words - 1]! | 0); // the highest carries the sign
    for (let i = words - 2; i >= 0; i--) unscaled = (unscaled << 32n) | BigInt(limbs[at + i]!);
    return Number(`${unscaled}e${-scale}`);
  };
}

function bytesAt({ values, valueOffsets }: Data, index: number): Uint8Array | BadCell {
  const [begin, end] = rangeAt(valueOffsets, index);
  const bytes = values as Uint8Array;
  return begin >= 0 && begin <= end && end <= bytes.length ? bytes.subarray(begin, end) : outside();
}

/** Where a value of any length lies; NaN, which is in no range, where the offsets end before it. */
function rangeAt(offsets: unknown, index: number): readonly [begin: number, end: number] {
  const { [index]: begin = NaN, [index + 1]: end = NaN } = offsets as Numbers;
  return [Number(begin), Number(end)];
}

function viewedBytesAt({ values, variadicBuffers }: Data, index: number): Uint8Array | BadCell {
  const views = values as Uint8Array;
  const at = 16 * index;
  if (at + 16 > views.length) return outside();
  const view = new DataView(views.buffer, views.byteOffset + at, 16);
  const length = view.getInt32(0, true);
  if (length >= 0 && length <= 12) return views.subarray(at + 4, at + 4 + length);
  const buffer = variadicBuffers?.[view.getInt32(8, true)];
  const begin = view.getInt32(12, true);
  if (!buffer || length < 0 || begin < 0 || begin + length > buffer.length) return outside();
  return buffer.subarray(begin, begin + length);
}

function fixedBytesReader(width: number): CellReader {
  return ({ values }, index) => {
    const bytes = values as Uint8Array;
    const end = (index + 1) * width;
    return end > bytes.length ? outside() : bytes.subarray(index * width, end);
  };
}

function textOf(bytes: Uint8Array | BadCell): string | BadCell {
  if (bytes instanceof BadCell) return bytes;
  try {
    return utf8.decode(bytes);
  } catch {
    return new BadCell('text that is not UTF-8');
  }
}

function listReader(type: DataType): CellReader {
  const read = cellReader(type);
  return ({ valueOffsets, children }, index) => {
    const [begin, end] = rangeAt(valueOffsets, index);
    return readRange(children[0] as Data, begin, end, read);
  };
}

function fixedListReader(type: DataType, size: number): CellReader {
  const read = cellReader(type);
  return ({ children }, index) => readRange(children[0] as Data, index * size, (index + 1) * size, read);
}

function readRange(child: Data, begin: number, end: number, read: CellReader): unknown[] | BadCell {
  if (!(begin >= 0 && begin <= end && end <= child.length)) return outside();
  const list = new Array<unknown>(end - begin);
  for (let i = begin; i < end; i++) list[i - begin] = read(child, i);
  return list;
}

function structReader(type: DataType): CellReader {
  const fields = membersOf(type).map(({ name, type: of }) => ({ name, read: cellReader(of) }));
  return ({ children }, index) => {
    const cells: Record<string, unknown> = {};
    fields.forEach(({ name, read }, i) => setField(cells, name, read(children[i] as Data, index)));
    return cells;
  };
}

/** Entries become an object's fields, as Parquet's maps do. */
function mapReader(entry: DataType): CellReader {
  const [readKey, readValue] = membersOf(entry).map(({ type }) => cellReader(type));
  return ({ valueOffsets, children }, index) => {
    const entries = children[0] as Data;
    const [keys, values] = entries.children as [Data, Data];
    const [begin, end] = rangeAt(valueOffsets, index);
    if (!(begin >= 0 && begin <= end && end <= entries.length)) return outside();
    const object: Record<string, unknown> = {};
    for (let i = begin; i < end; i++) setField(object, String(readKey!(keys, i)), readValue!(values, i));
    return object;
  };
}

function unionReader(members: readonly Member[], dense: boolean): CellReader {
  const readers = members.map(({ type }) => cellReader(type));
  return ({ type, typeIds, valueOffsets, children }, index) => {
    const { typeIdToChildIndex } = type as unknown as { typeIdToChildIndex: Record<number, number> };
    const id = (typeIds as ArrayLike<number>)[index] ?? NaN;
    const member = typeIdToChildIndex[id] ?? NaN;
    const read = readers[member];
    if (!read) return new BadCell('a member that its union does not have');
    const place = dense ? ((valueOffsets as ArrayLike<number>)[index] ?? NaN) : index;
    return read(children[member] as Data, place);
  };
}

function dictionaryReader(type: DataType): CellReader {
  const read = cellReader(type);
  // A batch holds one dictionary, and most of a file's batches the same.
  const decoded = new WeakMap<Vector, unknown[]>();
  return (data, index) => {
    const dictionary = data.dictionary;
    if (!dictionary) return new BadCell('a dictionary that is missing');
    let values = decoded.get(dictionary);
    if (!values) {
      values = [];
      for (const chunk of dictionary.data as readonly Data[]) {
        for (let i = 0; i < chunk.length; i++) values.push(read(chunk, i));
      }
      decoded.set(dictionary, values);
    }
    const key = Number((data.values as Numbers)[index]);
    return key >= 0 && key < values.length ? values[key] : new BadCell('a place outside its dictionary');
  };
}
