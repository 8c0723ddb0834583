// A start for the image projector: what varies among soft tokens, on equal terms. From random weights a projector takes
// long to tell features apart that differ little beside their common mean.

import { ModelError } from '../../errors.js';
import { type Tensor, noGrad, op, randn, scope, tensor } from '../../tensor/index.js';
import type { CausalLm } from './causal-lm.js';
import { Gemma3nMultimodal } from './model.js';

const qr = op<[Tensor, Tensor]>('aten::linalg_qr');
const eigh = op<[Tensor, Tensor]>('aten::linalg_eigh');

/** Sets the image projector's weight to the whitened principal components of these images' soft tokens: with y the
 *  normed features without their mean's direction and y = sum_i sqrt(l_i) v_i its decomposition, row i is
 *  v_i / sqrt(l_i). Components are found by randomised subspace iteration (arXiv:0909.4061).
 *  @param pixelValues [images, 3, height, width]; some hundred images, or the small components are noise
 *  @throws {ModelError} when the model has no image tower */
export function whitenProjector(model: CausalLm, pixelValues: Tensor): void {
  const { visionTower, embedVision } = model instanceof Gemma3nMultimodal ? model.model : {};
  if (!visionTower || !embedVision) {
    throw new ModelError({
      where: 'whitenProjector',
      expected: 'a model with an image tower',
      received: 'one without',
      remedy: "leave out projector: 'whitened'",
    });
  }
  const { weight } = embedVision.embeddingProjection;
  const numComponents = weight.shape[0] ?? 1;
  noGrad(() =>
    scope(() => {
      const { hiddenSize } = visionTower.config;
      const features = visionTower.forward(pixelValues).mul(Math.sqrt(hiddenSize));
      const normed = embedVision.softEmbeddingNorm.forward(features).flatten(0, 1).to('float32');
      // The projection has no bias: a mean that passed through it would drown the rest.
      const mean = normed.mean(0);
      const direction = mean.div(mean.square().sum().sqrt().add(1e-12)).unsqueeze(1);
      const without = (rows: Tensor) => rows.sub(rows.matmul(direction).mul(direction.transpose(0, 1)));
      const { components, variances } = principalComponents(without(normed), numComponents);
      // Components that these images hardly have would only amplify rounding.
      const floor = variances.amax().item() * 1e-4;
      const scale = variances.clamp({ min: Math.max(floor, 1e-12) }).rsqrt();
      const whitening = without(components.mul(scale).transpose(0, 1));
      weight.narrow(0, 0, whitening.shape[0] ?? 0).copy_(whitening);
    }),
  );
}

/** The first components of rows of mean zero: [size, count], and their variances, largest first: [count]. */
function principalComponents(rows: Tensor, count: number): { components: Tensor; variances: Tensor } {
  const [numRows = 1, size = 1] = rows.shape;
  const width = Math.min(size, count + 16);
  const transposed = rows.transpose(0, 1);
  let basis = randn([size, width], { dtype: 'float32', device: rows.device });
  for (let iteration = 0; iteration < 4; iteration++) {
    basis = qr(transposed.matmul(rows.matmul(basis)))[0];
  }
  const inside = rows.matmul(basis);
  const [values, vectors] = eigh(inside.transpose(0, 1).matmul(inside).div(numRows));
  const order = Array.from({ length: Math.min(count, width) }, (_, i) => width - 1 - i);
  const largest = (x: Tensor, dim: number) =>
    x.indexSelect(dim, tensor(BigInt64Array.from(order, BigInt), [order.length], 'int64', rows.device));
  return { components: basis.matmul(largest(vectors, 1)), variances: largest(values, 0) };
}
