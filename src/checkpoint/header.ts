// The header of a safetensors file: eight bytes of length, then JSON that says of each tensor its dtype, shape and
// bytes (https://github.com/huggingface/safetensors#format). Files come from strangers, so every number is checked
// against the file before anything is read by it: tensors must fill the data without overlap, hole or remainder.

import type { DType } from '../tensor/index.js';
import { checkpointFault, quote, showShape } from './faults.js';
import { isObject, JsonFault, parseStrictJson, type JsonObject } from './strict-json.js';

/** Bytes of an element, and what the engine calls it; without a name the engine cannot hold it. */
const dtypes = {
  F64: { bytes: 8, engine: 'float64' },
  F32: { bytes: 4, engine: 'float32' },
  F16: { bytes: 2, engine: 'float16' },
  BF16: { bytes: 2, engine: 'bfloat16' },
  I64: { bytes: 8, engine: 'int64' },
  I32: { bytes: 4, engine: 'int32' },
  I16: { bytes: 2, engine: 'int16' },
  I8: { bytes: 1, engine: 'int8' },
  U64: { bytes: 8, engine: undefined },
  U32: { bytes: 4, engine: undefined },
  U16: { bytes: 2, engine: undefined },
  U8: { bytes: 1, engine: 'uint8' },
  BOOL: { bytes: 1, engine: 'bool' },
  C64: { bytes: 8, engine: undefined },
  F8_E4M3: { bytes: 1, engine: undefined },
  F8_E5M2: { bytes: 1, engine: undefined },
  F8_E8M0: { bytes: 1, engine: undefined },
} as const satisfies Record<string, { bytes: number; engine: DType | undefined }>;

/** A dtype as the file spells it. */
export type StoredDType = keyof typeof dtypes;

/** One tensor of a file. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** First byte, counted from the start of the file. */
  readonly begin: number;
  /** The byte after its last. */
  readonly end: number;
}

/** What a file says of itself. */
export interface Header {
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Longer headers are refused, as in the reference implementation. */
export const maxHeaderBytes = 100_000_000;
export const prefixBytes = 8;

const again = 'download or save the file again';

/** The engine's name of a stored dtype, or undefined when it has none. */
export function engineDType(dtype: StoredDType): DType | undefined {
  return dtypes[dtype].engine;
}

/** Bytes of one element. */
export function elementBytes(dtype: StoredDType): number {
  return dtypes[dtype].bytes;
}

/** How the file spells one of the engine's dtypes. */
export function storedDType(dtype: DType): StoredDType {
  const found = Object.entries(dtypes).find(([, { engine }]) => engine === dtype)?.[0];
  if (found === undefined) throw new TypeError(`safetensors: no spelling for ${dtype}`);
  return found as StoredDType;
}

/** Bytes of the JSON that follows the prefix.
 *  @param prefix the first eight bytes of the file, or fewer when it is shorter
 *  @throws {CheckpointError} when the header does not fit into the file or is too long */
export function headerLength(prefix: Uint8Array, fileBytes: number, file: string): number {
  if (prefix.length < prefixBytes || fileBytes < prefixBytes) {
    throw checkpointFault(file, undefined, {
      expected: `a safetensors file, which has at least ${prefixBytes} bytes`,
      received: `${Math.min(fileBytes, prefix.length)} bytes`,
      remedy: again,
    });
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset, prefixBytes).getBigUint64(0, true);
  if (length > BigInt(fileBytes - prefixBytes)) {
    throw checkpointFault(file, undefined, {
      expected: `a header that ends inside the file of ${fileBytes} bytes`,
      received: `a header of ${length} bytes`,
      remedy: `it is cut off or no safetensors file: ${again}`,
    });
  }
  if (length > BigInt(maxHeaderBytes)) {
    throw checkpointFault(file, undefined, {
      expected: `a header of at most ${maxHeaderBytes} bytes`,
      received: `one of ${length} bytes`,
      remedy: again,
    });
  }
  return Number(length);
}

/** Parses and checks a header.
 *  @param json the header's bytes, without the prefix
 *  @throws {CheckpointError} naming file, tensor, what was expected and received */
export function parseHeader(json: Uint8Array, fileBytes: number, file: string): Header {
  const root = parseJson(json, file);
  const dataBegin = prefixBytes + json.length;
  const entries = new Map<string, TensorEntry>();
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(root)) {
    if (name === '__metadata__') metadata = parseMetadata(value, file);
    else entries.set(name, parseEntry(name, value, dataBegin, fileBytes, file));
  }
  checkCover([...entries.values()], dataBegin, fileBytes, file);
  return { entries, metadata };
}

/** The bytes that begin a file: prefix, JSON, and spaces up to a multiple of eight, so that tensors are aligned.
 *  Tensors lie in the order given. */
export function encodeHeader(
  tensors: readonly { name: string; dtype: StoredDType; shape: readonly number[] }[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  const root: JsonObject = Object.create(null) as JsonObject;
  if (Object.keys(metadata).length > 0) root.__metadata__ = metadata;
  let offset = 0;
  for (const { name, dtype, shape } of tensors) {
    if (name in root) throw new TypeError(`safetensors: the name ${quote(name)} is given twice`);
    const end = offset + elementBytes(dtype) * shape.reduce((product, size) => product * size, 1);
    root[name] = { dtype, shape, data_offsets: [offset, end] };
    offset = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(root));
  const padded = Math.ceil(json.length / 8) * 8;
  const bytes = new Uint8Array(prefixBytes + padded).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(json, prefixBytes);
  return bytes;
}

function parseJson(json: Uint8Array, file: string): JsonObject {
  const expected = 'a header of JSON, one object with each key once';
  let root: unknown;
  try {
    root = parseStrictJson(new TextDecoder('utf-8', { fatal: true }).decode(json));
  } catch (cause) {
    const received = cause instanceof JsonFault ? cause.message : 'bytes that are not UTF-8';
    throw checkpointFault(file, undefined, { expected, received, remedy: again }, cause);
  }
  if (isObject(root)) return root;
  throw checkpointFault(file, undefined, { expected, received: show(root), remedy: again });
}

function parseMetadata(value: unknown, file: string): Record<string, string> {
  if (isObject(value) && Object.values(value).every((text) => typeof text === 'string')) {
    return value as Record<string, string>;
  }
  throw checkpointFault(file, undefined, {
    expected: '__metadata__ to be an object of strings',
    received: show(value),
    remedy: again,
  });
}

function parseEntry(
  name: string,
  value: unknown,
  dataBegin: number,
  fileBytes: number,
  file: string,
): TensorEntry {
  const fail = (expected: string, received: string): never => {
    throw checkpointFault(file, name, { expected, received, remedy: again });
  };
  if (!isObject(value)) return fail('an object with dtype, shape and data_offsets', show(value));
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== 'string' || !Object.hasOwn(dtypes, dtype)) {
    return fail(`a dtype among ${Object.keys(dtypes).join(', ')}`, show(dtype));
  }
  if (!isSizes(shape)) return fail('a shape of whole numbers from 0 to 2^53 - 1', show(shape));
  if (!isSizes(offsets) || offsets.length !== 2) {
    return fail('data_offsets of two whole numbers from 0 to 2^53 - 1', show(offsets));
  }

  const [begin, end] = offsets as [number, number];
  const dataBytes = fileBytes - dataBegin;
  if (begin > end) return fail('data_offsets whose begin is not after their end', show(offsets));
  if (end > dataBytes) {
    return fail(`data_offsets inside the file's ${dataBytes} bytes of data`, show(offsets));
  }
  const bytes = shape.reduce((product, size) => product * size, dtypes[dtype as StoredDType].bytes);
  if (bytes !== end - begin) {
    return fail(`${bytes} bytes for ${dtype} ${showShape(shape)}`, `${end - begin} bytes ${show(offsets)}`);
  }
  return { name, dtype: dtype as StoredDType, shape, begin: dataBegin + begin, end: dataBegin + end };
}

/** Tensors in the order of their bytes must follow each other without a gap, from the first byte of data to the last. */
function checkCover(
  entries: readonly TensorEntry[],
  dataBegin: number,
  fileBytes: number,
  file: string,
): void {
  let end = dataBegin;
  let before: TensorEntry | undefined;
  for (const entry of [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (entry.begin !== end) {
      const where = before ? `where tensor ${quote(before.name)} ends` : 'where the data begin';
      throw checkpointFault(file, entry.name, {
        expected: `data that begin at ${end - dataBegin}, ${where}`,
        received: `${entry.begin - dataBegin}: ${entry.begin < end ? 'they overlap' : 'a hole between them'}`,
        remedy: again,
      });
    }
    end = entry.end;
    before = entry;
  }
  if (end !== fileBytes) {
    throw checkpointFault(file, undefined, {
      expected: `data of ${end - dataBegin} bytes, as its tensors add up to`,
      received: `${fileBytes - dataBegin} bytes`,
      remedy: again,
    });
  }
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && (size as number) >= 0);
}

function show(value: unknown): string {
  const text =
    value === undefined
      ? 'nothing'
      : JSON.stringify(value, (_, x: unknown) =>
          Number.isFinite(x) || typeof x !== 'number' ? x : String(x),
        );
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
