// What a plan says of checkpoints: the bytes of the copy that is written behind the training. The learner itself counts
// them, over a model whose tensors have shapes and no elements.

import { messageOf } from '../errors.js';
import { applyAdapter, createGemma3n, loadAdapter, loadConfig } from '../models/gemma3n/index.js';
import { isPart } from '../parts.js';
import { isEngineReady, withDefaults } from '../tensor/index.js';
import { snapshotBytes } from './checkpoint.js';
import { Learner } from './learner.js';
import type { Pipeline } from './pipeline.js';

/** Media that the batches of a plan hold: a tower that is given nothing gets no gradient, and no optimizer's state. */
export interface PlannedMedia {
  readonly images: number;
  readonly clips: number;
}

/** The most bytes of a checkpoint's copy of weights, optimizer and average; 0 without a sink that writes checkpoints.
 *  @param pipeline whose model is a folder with a configuration
 *  @returns null, and why, where they cannot be told */
export async function checkpointBytes(
  { model, step, sinks, seed }: Pipeline,
  { images, clips }: PlannedMedia,
): Promise<{ readonly bytes: number | null; readonly note?: string }> {
  if (!step || !sinks.some((sink) => isPart(sink, 'sink') && sink.kind === 'checkpoints'))
    return { bytes: 0 };
  const unknown = (why: string) => ({
    bytes: null,
    note: `the copy that a checkpoint takes is not counted: ${why}`,
  });
  if (!isEngineReady()) return unknown('the engine is not set up (npx pipe setup)');
  const { path, dtype, adapter } = model;
  const config = await loadConfig(path);
  const shapes = withDefaults({ dtype, device: 'meta' }, () => createGemma3n(config));
  try {
    if (typeof adapter === 'string') await loadAdapter(shapes, adapter, { trainable: true });
    else if (adapter) applyAdapter(shapes, { ...adapter, init: 'kaiming' });
    const learner = new Learner(shapes, { model: { ...model, device: 'meta' }, step, seed });
    const idle = [...(images > 0 ? [] : ['vision']), ...(clips > 0 ? [] : ['audio'])];
    return { bytes: snapshotBytes(learner, idle) };
  } catch (error) {
    return unknown(messageOf(error));
  } finally {
    shapes.dispose();
  }
}
