// Which of a repository's files a model needs: its configuration, its processor's files, and one set of weights in
// safetensors. Nothing else is downloaded: no pickles, no weights twice in other formats.

import { readFile } from 'node:fs/promises';
import { HubError } from '../errors.js';
import { malformed } from './faults.js';
import type { RemoteFile } from './listing.js';

/** What of a model is asked for: all of it, what its processor needs, its configuration without weights, or an adapter. */
export type Kind = 'model' | 'processor' | 'config' | 'adapter';

const CONFIG = ['config.json', 'generation_config.json'];
const PROCESSOR = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'tokenizer.model',
  'chat_template.jinja',
  'chat_template.json',
  'preprocessor_config.json',
  'processor_config.json',
];
export const SINGLE = 'model.safetensors';
export const INDEX = 'model.safetensors.index.json';
/** Of an adapter. */
export const ADAPTER = ['adapter_config.json', 'adapter_model.safetensors'];
const MAX_INDEX_BYTES = 100_000_000;

type Files = ReadonlyMap<string, RemoteFile>;

/** What is needed beside shards, the smallest first.
 *  @throws {HubError} when a model is asked for and the repository has no weights in safetensors */
export function wantedFiles(files: Files, asked: Kind, where: string): RemoteFile[] {
  const isAdapter = asked === 'model' && !files.has('config.json') && files.has(ADAPTER[0]!);
  const kind = isAdapter ? 'adapter' : asked;
  if (kind === 'adapter') return adapterFiles(files, where);
  const names = kind === 'processor' ? ['config.json', ...PROCESSOR] : [...CONFIG, ...PROCESSOR];
  if (kind === 'model') names.push(files.has(SINGLE) ? SINGLE : INDEX);
  const found = names.flatMap((name) => files.get(name) ?? []).sort((a, b) => a.numBytes - b.numBytes);
  if (kind === 'model' && !files.has(SINGLE) && !files.has(INDEX)) throw noWeights(files, where);
  return found;
}

/** With the processor's files, which may lie beside it. */
function adapterFiles(files: Files, where: string): RemoteFile[] {
  const missing = ADAPTER.filter((name) => !files.has(name));
  if (missing.length > 0) {
    throw new HubError({
      where,
      expected: `an adapter: ${ADAPTER.join(' and ')}`,
      received: `a repository without ${missing.join(' and ')}`,
      remedy: 'choose a repository that PEFT has saved with safetensors',
    });
  }
  return [...ADAPTER, ...PROCESSOR].flatMap((name) => files.get(name) ?? []);
}

/** The shards that an index names.
 *  @param path of the index on this machine
 *  @throws {HubError} when the index is no index, or names what the repository has not */
export async function shardsOf(path: string, files: Files, where: string): Promise<RemoteFile[]> {
  const text = await readFile(path, 'utf8');
  const names = text.length > MAX_INDEX_BYTES ? undefined : shardNames(text);
  if (!names) throw malformed(`${where}: ${INDEX}`, 'JSON with weight_map, from tensors to files', 'another');
  return names.map((name) => {
    const file = files.get(name);
    if (file && /^[^/]+\.safetensors$/.test(name)) return file;
    throw new HubError({
      where: `${where}: ${INDEX}`,
      expected: 'shards that the repository holds',
      received: JSON.stringify(name.slice(0, 120)),
      remedy: 'choose another revision, or tell the owner of the model',
    });
  });
}

function shardNames(text: string): string[] | undefined {
  try {
    const { weight_map: map } = JSON.parse(text) as { weight_map?: unknown };
    const names = [...new Set(Object.values(map as object))];
    return names.every((name) => typeof name === 'string') ? names : undefined;
  } catch {
    return undefined;
  }
}

function noWeights(files: Files, where: string): HubError {
  const others = [...files.keys()].filter((name) =>
    /\.(safetensors|bin|pth?|gguf|npz|onnx|msgpack|h5)$/.test(name),
  );
  const more = others.length > 5 ? ` and ${others.length - 5} more` : '';
  return new HubError({
    where,
    expected: `weights in ${SINGLE}, or in shards with ${INDEX}`,
    received: others.length > 0 ? others.slice(0, 5).join(', ') + more : 'a repository without weights',
    remedy:
      'choose the repository that Hugging Face Transformers loads, or convert the weights to safetensors',
  });
}
