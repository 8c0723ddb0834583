// Parity of the text tower with transformers: test/reference/text.py made the values.

import { describe, expect, it } from 'vitest';
import { relativeMax, relativeNorm, textReference } from './text-reference.js';

describe.each(['sharing', 'plain', 'clipped'])('the text tower (%s)', (name) => {
  it.each(['none', 'left', 'right'])('gives the logits and loss of the reference, padding: %s', (padding) => {
    const { model, value, gradientCase, gradientInTraining } = textReference(name);
    model.train(gradientInTraining && padding === gradientCase);
    const { logits, loss } = model.forward({
      inputIds: value(`${padding}.input_ids`),
      labels: value(`${padding}.labels`),
      ...(padding !== 'none' && { attentionMask: value(`${padding}.attention_mask`) }),
    });
    // In float32 the reference itself is up to 1.5e-5 from the float64 result.
    expect(relativeMax(logits, value(`${padding}.logits`))).toBeLessThan(1e-4);
    expect(loss?.item()).toBeCloseTo(value(`${padding}.loss`).item(), 5);
  });

  it.each(['forward', 'lossSum'] as const)('gives every gradient of the reference through %s', (path) => {
    const { model, value, values, gradientCase, gradientInTraining } = textReference(name);
    model.train(gradientInTraining);
    const inputs = {
      inputIds: value(`${gradientCase}.input_ids`),
      labels: value(`${gradientCase}.labels`),
      attentionMask: value(`${gradientCase}.attention_mask`),
    };
    if (path === 'forward') model.forward(inputs).loss?.backward();
    else {
      const { loss, numLabels } = model.lossSum(inputs);
      const mean = loss.div(numLabels);
      expect(mean.item()).toBeCloseTo(value(`${gradientCase}.loss`).item(), 5);
      mean.backward();
    }
    const faults: string[] = [];
    for (const [name, parameter] of model.namedParameters()) {
      const key = `grad.${name}`;
      const gradient = parameter.grad;
      if (values.has(key) !== (gradient !== null)) faults.push(`${name}: ${gradient ? 'a' : 'no'} gradient`);
      else if (gradient) {
        const error = relativeNorm(gradient, value(key));
        if (!(error < 1e-4)) faults.push(`${name}: relative error ${error}`);
      }
    }
    expect(faults).toEqual([]);
  });
});
