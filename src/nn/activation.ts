// Activation functions by the names that configurations use.

import { type Tensor, gelu, op } from '../tensor/index.js';

export type ActivationName = 'gelu_pytorch_tanh' | 'gelu' | 'silu' | 'relu';

const silu = op('aten::silu');
const geluMul = op('sluice::gelu_mul');

export function activation(name: ActivationName): (x: Tensor) => Tensor {
  switch (name) {
    case 'gelu_pytorch_tanh':
      return (x) => gelu(x, 'tanh');
    case 'gelu':
      return (x) => gelu(x);
    case 'silu':
      return (x) => silu(x);
    case 'relu':
      return (x) => x.relu();
  }
}

/** act(gate) * up, fused where the engine can. */
export function gated(name: ActivationName): (gate: Tensor, up: Tensor) => Tensor {
  if (name === 'gelu_pytorch_tanh') return (gate, up) => geluMul(gate, up);
  const act = activation(name);
  return (gate, up) => act(gate).mul(up);
}
