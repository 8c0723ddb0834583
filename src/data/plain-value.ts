// Plain data as bytes and back: a tree in JSON, and the bytes of its typed arrays behind each other. Nothing else can be
// in it, so that reading it runs no code, and what comes back is what was given, bit for bit.
//
// In the tree texts, booleans, null and ordinary numbers stand for themselves; all else is a list that begins with a mark.

import { DataError } from '../errors.js';

/** The bytes of a value. */
export interface PlainBytes {
  /** JSON. */
  readonly tree: string;
  /** Views of the value's own arrays, in order: not copies. */
  readonly arrays: readonly Uint8Array[];
}

const ARRAYS = {
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
} as const;

const MOST_DEPTH = 64;

/** @param where names the value for messages
 *  @throws {DataError} naming the path of what is no plain data: a class's object, a function, a circle */
export function plainBytes(value: unknown, where: string): PlainBytes {
  const arrays: Uint8Array[] = [];
  const node = (inner: unknown, path: string, depth: number): unknown => {
    switch (typeof inner) {
      case 'string':
      case 'boolean':
        return inner;
      case 'number':
        return Number.isFinite(inner) && !Object.is(inner, -0)
          ? inner
          : ['n', Object.is(inner, -0) ? '-0' : String(inner)];
      case 'undefined':
        return ['u'];
      case 'bigint':
        return ['b', String(inner)];
      case 'object':
        break;
      case 'function':
      case 'symbol':
        throw notPlain(where, path, `a ${typeof inner}`);
    }
    if (inner === null) return null;
    if (depth === MOST_DEPTH)
      throw notPlain(where, path, `something nested ${MOST_DEPTH} deep, or in a circle`);
    if (ArrayBuffer.isView(inner)) return array(inner, path);
    const kind = Object.getPrototypeOf(inner) as object | null;
    if (Array.isArray(inner) && kind === Array.prototype) {
      return ['l', ...Array.from(inner, (each: unknown, i) => node(each, `${path}[${i}]`, depth + 1))];
    }
    if (kind === Date.prototype) return ['d', node((inner as Date).getTime(), path, depth)];
    if (kind !== Object.prototype && kind !== null) throw notPlain(where, path, nameOf(inner));
    const fields = Object.entries(inner).flatMap(([key, each]) => [
      key,
      node(each, path === '' ? key : `${path}.${key}`, depth + 1),
    ]);
    return [kind === null ? 'o' : '{', ...fields];
  };
  const array = (view: ArrayBufferView, path: string): unknown => {
    const name = nameOf(view);
    if (name !== 'Buffer' && !isArrayName(name)) throw notPlain(where, path, `a ${name}`);
    arrays.push(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
    return ['a', name, (view as Uint8Array).length];
  };
  return { tree: JSON.stringify(node(value, '', 0)), arrays };
}

/** The value of a tree and of its arrays' bytes. Each array gets memory of its own, no more than `bytes` has.
 *  @throws {DataError} when they do not fit each other */
export function plainValue(tree: string, bytes: Uint8Array): unknown {
  let at = 0;
  const node = (inner: unknown, depth: number): unknown => {
    if (!Array.isArray(inner)) {
      if (inner === null || ['string', 'boolean', 'number'].includes(typeof inner)) return inner;
      throw damaged();
    }
    if (depth > MOST_DEPTH) throw damaged();
    const [mark, ...rest] = inner as readonly unknown[];
    switch (mark) {
      case 'u':
        return undefined;
      case 'n':
        return Number(rest[0]);
      case 'b':
        if (typeof rest[0] !== 'string' || !/^-?\d+$/.test(rest[0])) throw damaged();
        return BigInt(rest[0]);
      case 'd':
        return new Date(Number(node(rest[0], depth + 1)));
      case 'l':
        return rest.map((each) => node(each, depth + 1));
      case '{':
      case 'o':
        return fields(rest, mark === 'o' ? (Object.create(null) as object) : {}, depth);
      case 'a':
        return array(rest[0], rest[1]);
      default:
        throw damaged();
    }
  };
  const fields = (pairs: readonly unknown[], object: object, depth: number): object => {
    if (pairs.length % 2 !== 0) throw damaged();
    for (let i = 0; i < pairs.length; i += 2) {
      const key = pairs[i];
      if (typeof key !== 'string') throw damaged();
      const value = node(pairs[i + 1], depth + 1);
      // Not an assignment: "__proto__" is a key like any other.
      Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
    }
    return object;
  };
  const array = (name: unknown, length: unknown): ArrayBufferView => {
    if (typeof name !== 'string' || typeof length !== 'number' || !Number.isSafeInteger(length) || length < 0)
      throw damaged();
    if (name !== 'Buffer' && !isArrayName(name)) throw damaged();
    const { BYTES_PER_ELEMENT: size } = name === 'Buffer' ? Uint8Array : ARRAYS[name];
    const end = at + length * size;
    if (end > bytes.length) throw damaged();
    const { buffer, byteOffset } = bytes;
    const own = (buffer as ArrayBuffer).slice(byteOffset + at, byteOffset + end);
    at = end;
    return name === 'Buffer' ? Buffer.from(own) : new ARRAYS[name](own);
  };
  const value = node(JSON.parse(tree) as unknown, 0);
  if (at !== bytes.length) throw damaged();
  return value;
}

function isArrayName(name: string): name is keyof typeof ARRAYS {
  return Object.hasOwn(ARRAYS, name);
}

/** The class of an object, "Map". */
function nameOf(value: object): string {
  const { constructor } = value as { constructor?: unknown };
  return typeof constructor === 'function' && constructor.name !== ''
    ? constructor.name
    : 'an object of a class';
}

function notPlain(where: string, path: string, received: string): DataError {
  return new DataError({
    where: path === '' ? where : `${where}: ${path}`,
    expected: 'plain data: texts, numbers, typed arrays, lists and objects of them',
    received,
    remedy: 'put the stage that makes it behind the cache',
  });
}

function damaged(): DataError {
  return new DataError('cache: expected an entry as it was written, received another');
}
