// Adapters of PEFT: what they compute, what they learn from, and where ten steps lead, beside PEFT's own values.

import { describe, expect, it } from 'vitest';
import { loadAdapter } from '../../src/models/gemma3n/index.js';
import { adamw } from '../../src/optim/index.js';
import { type Tensor, noGrad, scope } from '../../src/tensor/index.js';
import { relativeMax, relativeNorm } from '../models/text-reference.js';
import { adapterReference, smallModel, storedName } from './adapter-reference.js';

const CASES = ['lora', 'rslora', 'dora', 'every', 'saved', 'pissa'];

describe.each(CASES)('%s of PEFT', (name) => {
  const reference = adapterReference(name);
  const inputs = () => ({
    inputIds: reference.value('input_ids'),
    attentionMask: reference.value('attention_mask'),
    labels: reference.value('labels'),
  });
  const load = async () =>
    loadAdapter(await smallModel(reference.base.split('text-')[1]), reference.folder, { trainable: true });

  it('gives the logits and the loss that it gives in PEFT', async () => {
    const model = await load();
    const { logits, loss } = noGrad(() => model.forward(inputs()));
    expect(relativeMax(logits, reference.value('logits'))).toBeLessThan(4e-5);
    expect(loss!.item()).toBeCloseTo(reference.value('loss').item(), 5);
    model.dispose();
  });

  it('learns by gradients that are those of PEFT, and leads to the same weights in ten steps of AdamW', async () => {
    const model = await load();
    model.train();
    const learning = [...model.namedParameters()].filter(([, tensor]) => tensor.requiresGrad);
    expect(learning.map(([key]) => storedName(key)).sort()).toEqual(
      reference.names
        .filter((key) => key.startsWith('trained.'))
        .map((key) => key.slice(8))
        .sort(),
    );
    const { lr, weightDecay } = reference;
    const optimizer = adamw({ lr, weightDecay })(learning.map(([, tensor]) => tensor));
    const losses: number[] = [];
    for (let step = 0; step < reference.steps; step++) {
      scope(() => {
        optimizer.zeroGrad();
        const { loss } = model.forward(inputs());
        loss!.backward();
        losses.push(loss!.item());
        if (step === 0) for (const [key, tensor] of learning) expectGradient(storedName(key), tensor);
        optimizer.step();
      });
    }
    const recorded = Array.from(reference.value('losses').toTypedArray(), Number);
    for (const [i, loss] of losses.entries()) expect(Math.abs(loss / recorded[i]! - 1)).toBeLessThan(5e-4);
    for (const [key, tensor] of learning) {
      const difference = relativeNorm(tensor, reference.value(`trained.${storedName(key)}`));
      expect(difference, key).toBeLessThan(1e-4);
    }
    model.dispose();
  });

  function expectGradient(key: string, tensor: Tensor): void {
    if (!reference.names.includes(`grad.${key}`)) {
      expect(tensor.grad, key).toBeNull();
      return;
    }
    const recorded = reference.value(`grad.${key}`);
    if (recorded.abs().amax().item() < 1e-9)
      return expect(tensor.grad!.abs().amax().item()).toBeLessThan(1e-9);
    // The recorded gradients are float32's own: those of 'saved' are up to 9e-4 off what float64 gives.
    const bound = name === 'saved' ? 1.5e-3 : 4e-4;
    expect(relativeNorm(tensor.grad!, recorded), key).toBeLessThan(bound);
  }
});
