// LoRA+ (arXiv:2402.12354): B learns faster than A, by a group of the optimizer.

import { expect, it } from 'vitest';
import { applyAdapter } from '../../src/models/gemma3n/index.js';
import { adamw } from '../../src/optim/index.js';
import { lora } from '../../src/peft/index.js';
import { noGrad, op, scope } from '../../src/tensor/index.js';
import { smallModel } from './adapter-reference.js';

const onesLike = op('aten::ones_like');

it('a group of the optimizer gives the matrices B a rate of their own', async () => {
  const model = applyAdapter(await smallModel(), lora({ rank: 2 }));
  const learning = [...model.namedParameters()].filter(([, tensor]) => tensor.requiresGrad);
  const before = new Map(learning.map(([name, tensor]) => [name, noGrad(() => tensor.detach().clone())]));
  const groups = [{ match: '*.lora_B.*', lrRatio: 16 }];
  const optimizer = adamw({ lr: 1e-3, weightDecay: 0, groups })(learning);
  scope(() => {
    for (const [, tensor] of learning) tensor.grad = noGrad(() => onesLike(tensor.detach()));
    optimizer.step();
    // the first step of Adam is as long as the rate
    for (const [name, tensor] of learning) {
      const change = before.get(name)!.sub(tensor.detach()).abs().amax().item();
      expect(change, name).toBeCloseTo(name.includes('lora_B') ? 16e-3 : 1e-3, 5);
    }
  });
  model.dispose();
});
