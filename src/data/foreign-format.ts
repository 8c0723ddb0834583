// Data files of other kinds, known by their first bytes, and where they belong.

export interface ForeignFormat {
  readonly name: string;
  readonly remedy: string;
}

const FORMATS: readonly (readonly [magic: string, name: string, remedy: string])[] = [
  ['PAR1', 'a Parquet file', 'read it with parquet(...)'],
  ['PARE', 'an encrypted Parquet file', 'decrypt it first; encrypted Parquet is not supported'],
  ['ARROW1', 'an Arrow file', 'read it with arrow(...)'],
  ['\xff\xff\xff\xff', 'an Arrow stream', 'read it with arrow(...)'],
  ['FEA1', 'a Feather file of version 1', 'write it again as an Arrow file (Feather version 2)'],
  ['PK\x03\x04', 'a ZIP archive', 'unpack it first'],
  ['\x1f\x8b', 'a gzip file', 'unpack it first'],
  ['\x28\xb5\x2f\xfd', 'a Zstandard file', 'unpack it first'],
  ['BZh', 'a bzip2 file', 'unpack it first'],
  ['\xfd7zXZ', 'an xz file', 'unpack it first'],
  ['Obj\x01', 'an Avro file', 'convert it to Parquet, Arrow or JSON lines'],
  ['ORC', 'an ORC file', 'convert it to Parquet, Arrow or JSON lines'],
  ['SQLite format 3', 'an SQLite database', 'export its rows to Parquet or JSON lines'],
  ['\x89HDF', 'an HDF5 file', 'convert it to Parquet, Arrow or JSON lines'],
  ['version https://git-lfs', 'a Git LFS pointer', 'fetch it with git lfs pull'],
  ['\xff\xfe', 'UTF-16 text', 'write it as UTF-8'],
  ['\xfe\xff', 'UTF-16 text', 'write it as UTF-8'],
];

/** What the first 32 bytes say that a file is.
 *  @param accepted names that are no strangers to the caller */
export function foreignFormat(head: Uint8Array, accepted: RegExp = /^an Arrow/): ForeignFormat | undefined {
  const text = Buffer.from(head.buffer, head.byteOffset, Math.min(head.length, 32)).toString('latin1');
  const found = FORMATS.find(([magic]) => text.startsWith(magic));
  if (!found || accepted.test(found[1])) return undefined;
  return { name: found[1], remedy: found[2] };
}
