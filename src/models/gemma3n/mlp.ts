// Gated feed-forward. On sparse layers the gate keeps only the units far above the mean: with p the sparsity, those
// beyond mean + icdf(p) * std, as if they were normally distributed.

import { Linear, Module, forwardAll, gated, roundTo } from '../../nn/index.js';
import { type Tensor, op, scope, tensor } from '../../tensor/index.js';
import type { TextConfig } from './config.js';

const erfinv = op('aten::erfinv');
const sparseGate = op('sluice::sparse_gate');
const sparseGeluUp = op('sluice::sparse_gelu_up');
const sparseLinear = op('sluice::sparse_linear');

/** From this share of units cut on, it saves time to compute the others' products one by one. */
const SPARSE = 0.8;

export class Mlp extends Module {
  gateProj: Linear;
  upProj: Linear;
  downProj: Linear;
  readonly #gated: (gate: Tensor, up: Tensor) => Tensor;
  /** Standard deviations above the mean where the gate is cut; undefined on dense layers. */
  readonly #cutoff: number | undefined;
  /** Whether so few units are left that their products are worth computing one by one. */
  readonly #isFew: boolean;

  constructor(config: TextConfig, layer: number) {
    super();
    const intermediateSize = config.intermediateSize[layer] ?? 0;
    const sparsity = config.activationSparsityPattern[layer] ?? 0;
    this.gateProj = new Linear(config.hiddenSize, intermediateSize);
    this.upProj = new Linear(config.hiddenSize, intermediateSize);
    this.downProj = new Linear(intermediateSize, config.hiddenSize);
    this.#gated = gated(config.hiddenActivation);
    this.#cutoff = sparsity > 0 ? normalQuantile(sparsity) : undefined;
    this.#isFew = sparsity >= SPARSE && config.hiddenActivation === 'gelu_pytorch_tanh';
  }

  /** @param x [batch, length, hidden] */
  forward(x: Tensor): Tensor {
    const { gateProj, upProj, downProj } = this;
    if (this.#isFew && upProj.isPlain && downProj.isPlain) {
      const open = this.#open(gateProj.forward(x));
      return sparseLinear(sparseGeluUp(open, x, upProj.weight), downProj.weight, downProj.bias);
    }
    const [gate = x, up = x] = forwardAll(x, [gateProj, upProj]);
    return downProj.forwardOnce(this.#gated(this.#open(gate), up));
  }

  /** The gate, cut on sparse layers. */
  #open(gate: Tensor): Tensor {
    return this.#cutoff === undefined ? gate : sparseGate(gate, roundTo(this.#cutoff, gate.dtype));
  }
}

/** The standard normal's quantile, with the reference's rounding: float32 throughout. */
function normalQuantile(p: number): number {
  return scope(() =>
    erfinv(tensor([p], [], 'float32').mul(2).sub(1))
      .mul(Math.SQRT2)
      .item(),
  );
}
