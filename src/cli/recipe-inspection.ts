// What `pipe inspect` shows of a pipeline file: its model, and what its way to train needs.

import { ConfigError, HubError } from '../errors.js';
import {
  inspectCheckpoint,
  publishedConfig,
  type Inspection,
  type InspectOptions,
} from '../models/gemma3n/index.js';
import { isPart } from '../parts.js';
import { guestOf } from '../train/guest.js';
import type { Pipeline } from '../train/pipeline.js';
import { loadPipeline } from './pipeline-file.js';

/** What the command line says in place of what the file does. */
export type LoadOverrides = Partial<Pick<InspectOptions, 'batch' | 'length' | 'images' | 'clips'>>;

/** Inspects a pipeline file's model for the batches that it makes. Google's models are known without the Hub.
 *  @throws {ConfigError} when the file is wrong, or its model is no Gemma */
export async function inspectPipeline(
  file: string,
  set: readonly string[],
  given: LoadOverrides & Pick<InspectOptions, 'signal'>,
): Promise<Inspection & { readonly name: string }> {
  const pipeline = await loadPipeline(file, set);
  if (guestOf(pipeline)) {
    throw new ConfigError({
      where: `${file}: model`,
      expected: 'a model of gemma3n(...)',
      received: `a ${pipeline.model.kind} model`,
      remedy: 'inspect another file',
    });
  }
  const { signal, ...load } = given;
  const options = {
    ...loadOf(pipeline),
    ...Object.fromEntries(Object.entries(load).filter(([, value]) => value !== undefined)),
    ...recipeOf(pipeline),
    weights: false,
  };
  const { path, revision } = pipeline.model;
  try {
    const found = await inspectCheckpoint(path, {
      ...options,
      ...(revision && { revision }),
      ...(signal && { signal }),
    });
    return { ...found, name: pipeline.name };
  } catch (error) {
    const known = error instanceof HubError ? publishedConfig(path) : undefined;
    if (!known) throw error;
    return { ...(await inspectCheckpoint(known, options)), checkpoint: path, name: pipeline.name };
  }
}

/** The largest batch that the flow makes, as far as its options say. */
function loadOf({ flow }: Pipeline): Required<LoadOverrides> {
  const options = (kind: string): Record<string, number | undefined> =>
    (flow.find((entry) => isPart(entry, 'stage') && entry.kind === kind) ?? {}) as Record<
      string,
      number | undefined
    >;
  const [batch, pack, encode] = [options('batch'), options('pack'), options('encode')];
  const { tokens, size = 1, images = 0, clips = 0 } = { ...pack, ...batch };
  const packed = pack['tokens'] === undefined ? 1 : (pack['rows'] ?? 1);
  return {
    batch: tokens === undefined ? size : packed,
    length: tokens ?? encode['maxTokens'] ?? 1024,
    images,
    clips,
  };
}

/** How the pipeline trains, in the words of an inspection. */
function recipeOf({ model, step }: Pipeline): InspectOptions {
  const { adapter, dtype, embeddings = 'device', freeze } = model;
  const { quantise } = model as { readonly quantise?: unknown };
  const shared = { dtype, freeze: freeze.filter(isFreezable) };
  if (!step) return shared;
  const { checkpointing = false } = step;
  const kind = typeof adapter === 'object' && adapter.kind === 'dora' ? 'dora' : 'lora';
  return {
    ...shared,
    ...(typeof adapter === 'object' && { rank: adapter.rank }),
    recipe: {
      method: adapter === undefined ? 'full' : quantise ? 'qlora' : kind,
      checkpointing: Array.isArray(checkpointing) ? checkpointing.includes('text') : checkpointing,
      mapped: embeddings !== 'device',
    },
  };
}

const FREEZABLE = ['vision', 'projector', 'audio', 'embeddings'] as const;

function isFreezable(pattern: string): pattern is (typeof FREEZABLE)[number] {
  return (FREEZABLE as readonly string[]).includes(pattern);
}
