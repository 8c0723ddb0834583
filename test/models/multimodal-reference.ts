// Whole models with the values that test/reference/multimodal*.py recorded: logits within 1e-4 of their scale, every
// gradient within 1e-3 of its norm.

import * as fs from 'node:fs';
import { expect } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { decodeConfig } from '../../src/models/gemma3n/config.js';
import type { LabelledInputs } from '../../src/models/gemma3n/index.js';
import { Gemma3nMultimodal, createGemma3n } from '../../src/models/gemma3n/model.js';
import { scope } from '../../src/tensor/index.js';
import { gradientDifference, recordedGradients, root, scaledDifference } from './reference.js';

/** fixtures/reference/multimodal-NAME: the model with its weights, and the values. */
export function load(name: string): { model: Gemma3nMultimodal; values: SafetensorsFile } {
  const folder = `${root}multimodal-${name}/`;
  const model = createGemma3n(decodeConfig(JSON.parse(fs.readFileSync(`${folder}config.json`, 'utf8'))));
  if (!(model instanceof Gemma3nMultimodal)) throw new Error('expected a model with towers');
  using weights = new SafetensorsFile(`${folder}model.safetensors`);
  const names: string[] = [];
  for (const [path, parameter] of model.namedParameters()) {
    weights.copyInto(path, parameter);
    names.push(path);
  }
  expect(names.sort()).toEqual([...weights.names].sort());
  return { model: model.eval(), values: new SafetensorsFile(`${folder}values.safetensors`) };
}

/** A batch's ids, mask and labels. @param side its name among the values */
export function wordsOf(values: SafetensorsFile, side: string) {
  return {
    inputIds: values.read(`${side}.input_ids`),
    attentionMask: values.read(`${side}.attention_mask`),
    labels: values.read(`${side}.labels`),
  };
}

type Labelled = LabelledInputs & ReturnType<typeof wordsOf>;

export function expectLogits(
  model: Gemma3nMultimodal,
  values: SafetensorsFile,
  side: string,
  batch: Labelled,
): void {
  scope(() => {
    const { logits, loss } = model.forward(batch);
    const mask = batch.attentionMask.to('float32').unsqueeze(-1); // padding's own logits mean nothing
    expect(scaledDifference(logits.mul(mask), values.read(`${side}.logits`).mul(mask))).toBeLessThan(1e-4);
    expect(Math.abs(loss!.item() - values.read(`${side}.loss`).item())).toBeLessThan(1e-5);

    const { loss: sum, numLabels } = model.lossSum(batch);
    expect(Math.abs(sum.item() / numLabels - values.read(`${side}.loss`).item())).toBeLessThan(1e-5);
  });
}

/** Of the mean loss, by either path, for the batch padded left. */
export function expectGradients(
  model: Gemma3nMultimodal,
  values: SafetensorsFile,
  path: 'forward' | 'lossSum',
  batch: Labelled,
): void {
  scope(() => {
    for (const [, parameter] of model.namedParameters()) parameter.grad = null;
    if (path === 'forward') model.forward(batch).loss!.backward();
    else {
      const { loss, numLabels } = model.lossSum(batch);
      loss.div(numLabels).backward();
    }

    const seen: string[] = [];
    const wrong: [string, number][] = [];
    for (const [key, parameter] of model.namedParameters()) {
      const gradient = parameter.grad;
      if (!gradient || gradient.abs().amax().item() === 0) continue;
      const difference = gradientDifference(gradient, key, values, 'left.');
      if (!(difference < 1e-3)) wrong.push([key, difference]);
      seen.push(key);
    }
    expect(wrong).toEqual([]);
    expect(seen.sort()).toEqual(recordedGradients(values, 'left.').sort());
  });
}

export function ids(values: SafetensorsFile, name: string): number[] {
  return scope(() => Array.from(values.read(name).toTypedArray(), Number));
}
