// Random weights as the reference draws them: normal matrices, norms of one, output scales of zero.

import { Embedding, Linear, type Module, RmsNorm } from '../../nn/index.js';
import { noGrad, op, scope } from '../../tensor/index.js';
import { AltUp } from './altup.js';

const normal_ = op('aten::normal_');

/** Fills every linear, embedding, norm and AltUp below `root` in order, from the engine's generator: seed it before.
 *  @param std of matrices; `initializerRange` of the configuration */
export function initialise(root: Module, std: number): void {
  noGrad(() =>
    scope(() => {
      for (const [, module] of root.namedModules()) {
        if (module instanceof Linear) {
          normal_(module.weight, 0, std);
          module.bias?.zero_();
        } else if (module instanceof Embedding) {
          normal_(module.weight, 0, std);
          const { paddingId } = module.options;
          if (paddingId !== undefined) module.weight.select(0, paddingId).zero_();
        } else if (module instanceof RmsNorm) {
          module.weight?.fill_(1);
        } else if (module instanceof AltUp) {
          module.correctOutputScale.zero_();
        }
      }
    }),
  );
}
