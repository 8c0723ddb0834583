// Arrays that stand for media nobody has read: of the right length, all zero, views of one shared buffer that is never
// written to. A plan of a run counts shapes and bytes with them; the system backs their pages with memory only when they
// are touched, so a batch of them costs nothing.

let shared = new ArrayBuffer(0);

/** Every buffer that blanks are or were views of. */
const buffers = new WeakSet<ArrayBufferLike>([shared]);

/** Zeros, to be read only. [length] */
export function blankFloats(length: number): Float32Array {
  return new Float32Array(bufferOf(length * Float32Array.BYTES_PER_ELEMENT), 0, length);
}

/** Zeros, to be read only. [length] */
export function blankBytes(length: number): Uint8Array {
  return new Uint8Array(bufferOf(length), 0, length);
}

/** Whether the array is one of these: then what is made of it may be blank too. */
export function isBlank({ buffer }: { readonly buffer: ArrayBufferLike }): boolean {
  return buffers.has(buffer);
}

function bufferOf(numBytes: number): ArrayBuffer {
  if (shared.byteLength < numBytes) {
    shared = new ArrayBuffer(Math.max(numBytes, 2 * shared.byteLength, 2 ** 16));
    buffers.add(shared);
  }
  return shared;
}
