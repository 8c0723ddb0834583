// Parquet's footers and page headers are Thrift structs in the compact protocol. A hostile one can claim a list of
// 2^32 elements or nest without end, and hyparquet allocates what is claimed. So each is walked first, keeping
// nothing; what passes here holds no more elements than it has bytes.

const MAX_DEPTH = 32;

const enum Type {
  Stop = 0,
  True = 1,
  False = 2,
  Byte = 3,
  I16 = 4,
  I32 = 5,
  I64 = 6,
  Double = 7,
  Binary = 8,
  List = 9,
  Set = 10,
  Struct = 12,
}

/** Walks the struct that begins at `offset`.
 *  @returns the offset behind it
 *  @throws {RangeError} saying what does not fit: it leaves the buffer, claims too much, or nests too deep */
export function skipStruct(view: DataView, offset: number): number {
  return new Walk(view, offset).struct(0);
}

class Walk {
  readonly #view: DataView;
  #offset: number;

  constructor(view: DataView, offset: number) {
    this.#view = view;
    this.#offset = offset;
  }

  struct(depth: number): number {
    if (depth > MAX_DEPTH) throw new RangeError(`structs nested more than ${MAX_DEPTH} deep`);
    for (;;) {
      const header = this.#byte();
      const type: Type = header & 0x0f;
      if (type === Type.Stop) return this.#offset;
      if (header >> 4 === 0) this.#varint(); // the field's number, when it is not a small step
      this.#value(type, depth, false);
    }
  }

  #value(type: Type, depth: number, inList: boolean): void {
    switch (type) {
      case Type.True:
      case Type.False:
        if (inList) this.#skip(1); // as a field, its type is its value
        return;
      case Type.Byte:
        return this.#skip(1);
      case Type.I16:
      case Type.I32:
      case Type.I64:
        this.#varint();
        return;
      case Type.Double:
        return this.#skip(8);
      case Type.Binary:
        return this.#skip(this.#varint());
      case Type.List:
      case Type.Set:
        return this.#list(depth);
      case Type.Struct:
        this.struct(depth + 1);
        return;
      case Type.Stop:
      default:
        throw new RangeError(`unknown field type ${type}`);
    }
  }

  #list(depth: number): void {
    if (depth > MAX_DEPTH) throw new RangeError(`lists nested more than ${MAX_DEPTH} deep`);
    const header = this.#byte();
    const size = header >> 4 === 15 ? this.#varint() : header >> 4;
    const left = this.#view.byteLength - this.#offset;
    if (size > left) throw new RangeError(`a list of ${size} elements in ${left} bytes`);
    for (let i = 0; i < size; i++) this.#value(header & 0x0f, depth + 1, true);
  }

  #varint(): number {
    let result = 0;
    for (let i = 0; i < 10; i++) {
      const byte = this.#byte();
      result += (byte & 0x7f) * 2 ** (7 * i);
      if (byte < 0x80) return result;
    }
    throw new RangeError('a number of more than 10 bytes');
  }

  #byte(): number {
    if (this.#offset >= this.#view.byteLength) throw new RangeError('it ends in the middle');
    return this.#view.getUint8(this.#offset++);
  }

  #skip(bytes: number): void {
    if (bytes > this.#view.byteLength - this.#offset) {
      throw new RangeError(`a field of ${bytes} bytes in ${this.#view.byteLength - this.#offset}`);
    }
    this.#offset += bytes;
  }
}
