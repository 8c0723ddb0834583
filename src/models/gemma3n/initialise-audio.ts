// Random weights for the audio tower, so that it learns from scratch.

import { type Tensor, noGrad, op, scope } from '../../tensor/index.js';
import type { AudioTower } from './audio.js';
import { AudioAttention } from './audio-attention.js';
import { CausalDepthwiseConv } from './audio-conformer.js';
import { CumulativeGroupNorm, ReverseCausalConv } from './audio-subsample.js';
import { initialise } from './initialise.js';

const normal_ = op('aten::normal_');

/** Fills an audio tower from the engine's generator: seed it before.
 *
 *  Linears and norms as `initialise` has them. Convolutions are normal with variance 2 / fan-in, those of a channel alone
 *  1 / kernel; their norm's weights are 1. The first one's kernels sum to zero: log-mel lies far below zero, and its level
 *  would drown what varies (of the features of spoken digits behind four layers 0.42 varies so, else 0.18). Attention
 *  starts with the scale 1 / sqrt(headDim), that of `perDimScale` zero. */
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
  if (isFirst && time * frequency > 1) weight.sub_(weight.mean([2, 3], true));
}
