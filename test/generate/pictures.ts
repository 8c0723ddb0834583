// Pictures of fixtures/easy-vqa that the small model has not seen, by what their questions say of them.

import { parquetReadObjects } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

interface Row {
  readonly images: readonly { readonly bytes: Uint8Array }[];
  readonly texts: readonly { readonly user: string; readonly assistant: string }[];
}

const file = fileURLToPath(new URL('../../fixtures/easy-vqa/test.parquet', import.meta.url));
let rows: readonly Row[] | undefined;

/** The first held-out PNG of which both words are answers. */
export async function shapePicture(shape: string, colour: string): Promise<Uint8Array> {
  const bytes = readFileSync(file);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  rows ??= (await parquetReadObjects({ file: buffer, compressors, utf8: false })) as unknown as Row[];
  const found = rows.find(({ texts }) => {
    const answers = new Set(texts.map(({ assistant }) => assistant));
    return answers.has(shape) && answers.has(colour);
  });
  if (!found) throw new Error(`no ${colour} ${shape} in ${file}`);
  return Uint8Array.from(found.images[0]!.bytes);
}
