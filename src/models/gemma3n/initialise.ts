// Random weights for everything but the towers' convolutions, scaled so that a small model learns from scratch. The reference's
// own draw (normal 0.02 everywhere, output scales of zero) leaves a layer's result too faint to reach the logits.

import { Embedding, Linear, type Module, RmsNorm } from '../../nn/index.js';
import { type Tensor, noGrad, op, scope } from '../../tensor/index.js';
import { AltUp } from './altup.js';
import { Attention } from './attention.js';

const normal_ = op('aten::normal_');

/** AltUp starts close to "copies stay as they are, the layer's result reaches all of them". */
const ALTUP_COEF_STD = 0.02;

/** Fills every linear, embedding, norm and AltUp below `root` in order, from the engine's generator: seed it before.
 *  @param except a module below it that is left as it is, with all below that
 *
 *  Linears are normal with variance 1 / fan-in. Embeddings are normal with variance 1 / size, so that the factor
 *  sqrt(size) of the forward gives them variance 1. Norms are 1, the queries' 1/sqrt(headDim): Gemma 3n's attention has
 *  no scale of its own, and sharp attention at the start learns nothing. AltUp's output scale is 1. */
export function initialise(root: Module, except?: Module): void {
  noGrad(() =>
    scope(() => {
      const left = new Set(Array.from(except?.namedModules() ?? [], ([, module]) => module));
      const modules = Array.from(root.namedModules(), ([, module]) => module).filter(
        (module) => !left.has(module),
      );
      for (const module of modules) {
        if (module instanceof Linear) {
          fill(module.weight, module.weight.shape[1] ?? 1);
          module.bias?.zero_();
        } else if (module instanceof Embedding) {
          fill(module.weight, module.weight.shape[1] ?? 1);
          const { paddingId } = module.options;
          if (paddingId !== undefined) module.weight.select(0, paddingId).zero_();
        } else if (module instanceof RmsNorm) {
          module.weight?.fill_(1);
        }
      }
      for (const module of modules) {
        if (module instanceof AltUp) {
          module.correctOutputScale.fill_(1);
          normal_(module.correctionCoefs.weight, 0, ALTUP_COEF_STD);
          normal_(module.predictionCoefs.weight, 0, ALTUP_COEF_STD);
        } else if (module instanceof Attention) {
          module.qNorm.weight?.fill_(module.qNorm.dim ** -0.5);
        }
      }
    }),
  );
}

/** Normal with variance 1 / size. */
function fill(weight: Tensor, size: number): void {
  normal_(weight, 0, size ** -0.5);
}
