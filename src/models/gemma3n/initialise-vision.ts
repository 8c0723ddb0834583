// Random weights for the image tower, so that it learns from scratch. Unlike the reference's (normal, 0.02 everywhere),
// they keep an image's signal alive through the depthwise convolutions, and black pixels away from zero.

import type { Module } from '../../nn/index.js';
import { type Tensor, noGrad, op, scope, tensor } from '../../tensor/index.js';
import { MultiQueryAttention2d } from './mobilenet-blocks.js';
import { Conv2d, LayerScale2d, RmsNorm2d } from './mobilenet-layers.js';

const normal_ = op('aten::normal_');
const uniform_ = op('aten::uniform_');

/** Of the one bias that the tower has. */
const STEM_BIAS_STD = 0.5;

/** Fills every layer of image towers below `root` from the engine's generator: seed it before.
 *
 *  Convolutions are normal with variance 2 / fan-in; those of attention Xavier-uniform, as timm's. Depthwise ones are a
 *  Gaussian blur of sum 1, all alike: a linear probe then reads the colour of easy-VQA's shapes off the features of 0.97
 *  of the pictures before any training, 0.93 with noise of half the kernel's norm on top, 0.60 with noise alone. The
 *  stem's bias is normal with deviation 0.5: with a bias of zero, black pixels reach the norm as zeros, where its
 *  gradient is 1/sqrt(eps). Layer scales take `layer_scale_init_value`. */
export function initialiseVision(root: Module): void {
  noGrad(() =>
    scope(() => {
      const modules = Array.from(root.namedModules(), ([, module]) => module);
      for (const module of modules) {
        if (module instanceof Conv2d) fillConvolution(module);
        else if (module instanceof RmsNorm2d) module.weight.fill_(1);
        else if (module instanceof LayerScale2d) module.gamma.fill_(module.initialValue);
      }
      for (const attention of modules.filter((module) => module instanceof MultiQueryAttention2d)) {
        for (const [, module] of attention.namedModules()) {
          if (module instanceof Conv2d) fillXavier(module.weight);
        }
      }
    }),
  );
}

function fillConvolution({ weight, bias }: Conv2d): void {
  const [, inChs = 1, kernelSize = 1] = weight.shape;
  const fanIn = inChs * kernelSize * kernelSize;
  const isDepthwise = inChs === 1 && kernelSize > 1;
  if (isDepthwise) weight.copy_(blur(kernelSize));
  else normal_(weight, 0, Math.sqrt(2 / fanIn));
  if (bias) normal_(bias, 0, STEM_BIAS_STD);
}

/** A Gaussian of standard deviation size / 4 and sum 1. [size, size] */
function blur(size: number): Tensor {
  const weights = Array.from({ length: size * size }, (_, i) => {
    const [y, x] = [Math.floor(i / size) - (size - 1) / 2, (i % size) - (size - 1) / 2];
    return Math.exp((-8 * (x * x + y * y)) / (size * size));
  });
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return tensor(
    weights.map((weight) => weight / sum),
    [size, size],
  );
}

function fillXavier(weight: Tensor): void {
  const [outChs = 1, inChs = 1, height = 1, width = 1] = weight.shape;
  const bound = Math.sqrt(6 / ((inChs + outChs) * height * width));
  uniform_(weight, -bound, bound);
}
