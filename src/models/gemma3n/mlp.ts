// Gated feed-forward. On sparse layers the gate keeps only the units far above the mean: with p the sparsity, those
// beyond mean + icdf(p) * std, as if they were normally distributed.

import { Linear, Module, gated, roundTo } from '../../nn/index.js';
import { type Tensor, op, scope, tensor } from '../../tensor/index.js';
import type { TextConfig } from './config.js';

const erfinv = op('aten::erfinv');
const vectorNorm = op('aten::linalg_vector_norm');

export class Mlp extends Module {
  gateProj: Linear;
  upProj: Linear;
  downProj: Linear;
  readonly #gated: (gate: Tensor, up: Tensor) => Tensor;
  /** Standard deviations above the mean where the gate is cut; undefined on dense layers. */
  readonly #cutoff: number | undefined;

  constructor(config: TextConfig, layer: number) {
    super();
    const intermediateSize = config.intermediateSize[layer] ?? 0;
    const sparsity = config.activationSparsityPattern[layer] ?? 0;
    this.gateProj = new Linear(config.hiddenSize, intermediateSize);
    this.upProj = new Linear(config.hiddenSize, intermediateSize);
    this.downProj = new Linear(intermediateSize, config.hiddenSize);
    this.#gated = gated(config.hiddenActivation);
    this.#cutoff = sparsity > 0 ? normalQuantile(sparsity) : undefined;
  }

  /** @param x [batch, length, hidden] */
  forward(x: Tensor): Tensor {
    const gate = this.gateProj.forward(x);
    const open = this.#cutoff === undefined ? gate : cut(gate, this.#cutoff);
    return this.downProj.forward(this.#gated(open, this.upProj.forward(x)));
  }
}

function cut(gate: Tensor, cutoff: number): Tensor {
  const mean = gate.mean(-1, true);
  // libtorch's own deviation takes ten times as long. The mean is left out of the derivative: its part there is zero.
  const std = vectorNorm(gate.sub(mean.detach()), 2, [-1], true).div(Math.sqrt(gate.shape.at(-1) ?? 1));
  return gate.sub(mean.add(std.mul(roundTo(cutoff, gate.dtype)))).relu();
}

/** The standard normal's quantile, with the reference's rounding: float32 throughout. */
function normalQuantile(p: number): number {
  return scope(() =>
    erfinv(tensor([p], [], 'float32').mul(2).sub(1))
      .mul(Math.SQRT2)
      .item(),
  );
}
