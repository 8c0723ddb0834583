// Random weights for the audio tower, so that it learns from scratch.

import { type Tensor, noGrad, op, scope, tensor } from '../../tensor/index.js';
import type { AudioTower } from './audio.js';
import { AudioAttention } from './audio-attention.js';
import { CausalDepthwiseConv } from './audio-conformer.js';
import { CumulativeGroupNorm, ReverseCausalConv } from './audio-subsample.js';
import { initialise } from './initialise.js';

const normal_ = op('aten::normal_');

/** Fills an audio tower from the engine's generator: seed it before.
 *
 *  Linears and norms as `initialise` has them. Convolutions are normal with variance 2 / fan-in, those of a channel alone
 *  1 / kernel; their norm's weights are 1. The first one's kernels are positive and negative in turn: level says more than
 *  edges do. From a tower of two layers, before any training, a linear probe reads 0.60 of the single digits of
 *  fixtures/spoken-digits off the mean over time, voices apart; 0.54 with kernels of mixed signs, 0.19 with kernels that
 *  sum to zero. Attention starts with the scale 1 / sqrt(headDim), that of `perDimScale` zero.
 */
export function initialiseAudio(tower: AudioTower): void {
  initialise(tower);
  noGrad(() =>
    scope(() => {
      for (const [, module] of tower.namedModules()) {
        if (module instanceof ReverseCausalConv) {
          fillConvolution(module.weight);
        } else if (module instanceof CausalDepthwiseConv) {
          normal_(module.weight, 0, (module.weight.shape[2] ?? 1) ** -0.5);
        } else if (module instanceof CumulativeGroupNorm) module.weight.fill_(1);
        else if (module instanceof AudioAttention) module.perDimScale.zero_();
      }
    }),
  );
}

function fillConvolution(weight: Tensor): void {
  const [, inChs = 1, time = 1, frequency = 1] = weight.shape;
  normal_(weight, 0, Math.sqrt(2 / (inChs * time * frequency)));
  const isFirst = inChs === 1;
  if (isFirst) weight.copy_(weight.abs().mul(signs(weight)));
}

/** 1 and -1 in turn of the channels, shaped to multiply the weight. [outChs, 1, 1, 1] */
function signs({ shape, dtype, device }: Tensor): Tensor {
  const [outChs = 1] = shape;
  const values = Array.from({ length: outChs }, (_, i) => (i % 2 === 0 ? 1 : -1));
  return tensor(values, [outChs, 1, 1, 1], dtype, device);
}
