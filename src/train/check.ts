// Everything about a pipeline that can be refused before its model is loaded.

import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Processor, loadProcessor } from '../data/processor.js';
import { ConfigError } from '../errors.js';
import { ADAPTER_CONFIG, refuseMappedAndQuantised } from '../models/gemma3n/index.js';
import { guestOf, guestProcessor, guestSpec } from './guest.js';
import type { Pipeline } from './pipeline.js';
import { checkFlow } from './sample-flow.js';
import type { Sinks } from './sinks.js';
import { trainingFlow } from './training.js';

/** @param pipeline its model in a folder of this machine
 *  @returns the model's processor
 *  @throws {ConfigError} for a wrong value of the pipeline, {DataError} for files that cannot be read as declared,
 *    {TextError} for processor files that do not fit */
export async function checkPipeline(pipeline: Pipeline, sinks: Sinks): Promise<Processor> {
  const processor = await checkModel(pipeline);
  if (pipeline.step) {
    if (pipeline.source === undefined) {
      throw new ConfigError({
        where: 'source',
        expected: 'a source to train from',
        received: 'nothing',
        remedy: 'add source: parquet(...), or leave out step to evaluate only',
      });
    }
    await checkFlow(trainingFlow(pipeline, processor));
  }
  await sinks.check({ processor });
  return processor;
}

async function checkModel(pipeline: Pipeline): Promise<Processor> {
  const guest = guestOf(pipeline);
  if (guest) {
    refuseOurs(pipeline);
    guest.check?.(guestSpec(pipeline));
    return guestProcessor();
  }
  checkModelFolder(pipeline.model.path);
  checkEmbeddings(pipeline.model);
  checkAdapter(pipeline.model);
  checkQuantise(pipeline);
  checkBackwardUpdate(pipeline);
  return loadProcessor(pipeline.model.path);
}

/** Of a step's options, those that are about our own backward pass and weights. */
const OURS = ['checkpointing', 'offload', 'optimizerInBackward', 'ema'] as const;

function refuseOurs({ model, step }: Pipeline): void {
  const given = OURS.find((key) => step?.[key] !== undefined && step[key] !== false);
  if (given === undefined) return;
  throw new ConfigError({
    where: `step.${given}`,
    expected: `none with a ${model.kind} model`,
    received: JSON.stringify(step?.[given]),
    remedy: 'leave it out: it is for gemma3n(...)',
  });
}

/** Drawn weights have no file that they could stay in. */
function checkEmbeddings({ embeddings = 'device', weights }: Pipeline['model']): void {
  if (embeddings === 'device' || weights !== 'random') return;
  throw new ConfigError({
    where: 'model.embeddings',
    expected: "'device', since weights: 'random' are in no file",
    received: `'${embeddings}'`,
    remedy: 'leave it out, or start from pretrained weights',
  });
}

/** An adapter's checkpoints hold no more than the adapter: what it belongs to must be found elsewhere again. */
function checkAdapter({ adapter, weights, projector }: Pipeline['model']): void {
  if (adapter === undefined) return;
  const other =
    weights === 'random'
      ? "weights: 'random'"
      : projector === 'whitened'
        ? "projector: 'whitened'"
        : undefined;
  if (other !== undefined) {
    throw new ConfigError({
      where: 'model.adapter',
      expected: 'a base that stays as it is in its files',
      received: other,
      remedy: 'leave it out; train such a model whole first, and an adapter on its checkpoint then',
    });
  }
  if (typeof adapter !== 'string' || existsSync(join(adapter, ADAPTER_CONFIG))) return;
  throw new ConfigError({
    where: 'model.adapter',
    expected: `lora({ ... }), dora({ ... }), a folder with ${ADAPTER_CONFIG}, or a repository of the Hub`,
    received: adapter,
    remedy: 'correct the path',
  });
}

/** What is quantised learns nothing by itself, and is read from files. */
function checkQuantise({ model, step }: Pipeline): void {
  const { quantise, adapter, weights, embeddings = 'device' } = model;
  if (!quantise) return;
  refuseMappedAndQuantised('model.quantise.embeddings', quantise, embeddings);
  const fault = (expected: string, received: string, remedy: string): ConfigError =>
    new ConfigError({ where: 'model.quantise', expected, received, remedy });
  if (weights === 'random') {
    throw fault('weights from files', "weights: 'random'", 'leave it out, or start from pretrained weights');
  }
  if (!step || adapter !== undefined) return;
  throw fault(
    `an adapter that learns beside the weights in ${quantise.format}, which are frozen`,
    'full fine-tuning',
    'add adapter: lora({ rank: 16, alpha: 32 }), or leave out quantise to fine-tune whole',
  );
}

/** An adapter's gradients are small, and layers that learn nothing else would be updated one by one for nothing. */
function checkBackwardUpdate({ model, step }: Pipeline): void {
  if (!step?.optimizerInBackward || model.adapter === undefined) return;
  throw new ConfigError({
    where: 'step.optimizerInBackward',
    expected: 'full fine-tuning, whose gradients are as large as the model',
    received: 'an adapter, whose gradients take next to nothing',
    remedy: 'leave one of the two out',
  });
}

function checkModelFolder(path: string): void {
  if (existsSync(join(path, 'config.json'))) return;
  const status = statSync(path, { throwIfNoEntry: false });
  const fault = status
    ? status.isDirectory()
      ? 'which has none'
      : 'which is no folder'
    : 'which does not exist';
  throw new ConfigError({
    where: 'model.path',
    expected: "a folder with config.json, or a repository of the Hub, 'owner/name'",
    received: `${path}, ${fault}`,
    remedy: 'correct the path',
  });
}
