// Random weights for the audio tower, so that it learns from scratch.

import { noGrad, op, scope } from '../../tensor/index.js';
import type { AudioTower } from './audio.js';
import { AudioAttention } from './audio-attention.js';
import { CausalDepthwiseConv } from './audio-conformer.js';
import { CumulativeGroupNorm, ReverseCausalConv } from './audio-subsample.js';
import { initialise } from './initialise.js';

const normal_ = op('aten::normal_');

/** Fills an audio tower from the engine's generator: seed it before.
 *
 *  Linears and norms as `initialise` has them. Convolutions are normal with variance 2 / fan-in, those of a channel alone
 *  1 / kernel; their norm's weights are 1. Attention starts with the scale 1 / sqrt(headDim), `perDimScale` of zero. */
export function initialiseAudio(tower: AudioTower): void {
  initialise(tower);
  noGrad(() =>
    scope(() => {
      for (const [, module] of tower.namedModules()) {
        if (module instanceof ReverseCausalConv) {
          const [, inChs = 1, time = 1, frequency = 1] = module.weight.shape;
          normal_(module.weight, 0, Math.sqrt(2 / (inChs * time * frequency)));
        } else if (module instanceof CausalDepthwiseConv) {
          normal_(module.weight, 0, (module.weight.shape[2] ?? 1) ** -0.5);
        } else if (module instanceof CumulativeGroupNorm) module.weight.fill_(1);
        else if (module instanceof AudioAttention) module.perDimScale.zero_();
      }
    }),
  );
}
