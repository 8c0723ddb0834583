// Activation functions by the names that configurations use.

import { type Tensor, gelu, op } from '../tensor/index.js';

export type ActivationName = 'gelu_pytorch_tanh' | 'gelu' | 'silu' | 'relu';

const silu = op('aten::silu');

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
