// Packed rows against transformers, which tells sequences apart by their positions too: test/reference/packed.py made the
// values.

import { expect, it } from 'vitest';
import { scope } from '../../src/tensor/index.js';
import { relativeNorm } from './reference.js';
import { readSafetensors, referencePath, relativeMax, textReference, toTensor } from './text-reference.js';

it('gives the logits, loss and gradients of the reference for packed rows', () => {
  const values = readSafetensors(referencePath('text-packed.safetensors'));
  const { model } = textReference('sharing');
  scope(() => {
    const value = (name: string) => toTensor(values.get(name)!);
    const inputs = { inputIds: value('input_ids'), positionIds: value('position_ids') };
    // In float32 the reference itself is up to 1.5e-5 from the float64 result.
    expect(relativeMax(model.forward(inputs).logits, value('logits'))).toBeLessThan(1e-4);

    const { loss, numLabels } = model.lossSum({ ...inputs, labels: value('labels') });
    expect(numLabels).toBe(2 * 28 - 8);
    expect(Math.abs(loss.item() / value('loss').item() - 1)).toBeLessThan(1e-5);
    loss.backward();
    const recorded = [...values.keys()].filter((name) => name.startsWith('grad.'));
    expect(recorded.length).toBeGreaterThan(40);
    const gradients = new Map([...model.namedParameters()].map(([name, { grad }]) => [`grad.${name}`, grad]));
    const wrong = recorded.filter((name) => {
      const gradient = gradients.get(name);
      return !gradient || !(relativeNorm(gradient, value(name)) < 1e-4);
    });
    expect(wrong).toEqual([]);
  });
});
