// Comparing with what test/reference/*.py recorded.

import { fileURLToPath } from 'node:url';
import type { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { type Tensor, scope } from '../../src/tensor/index.js';

/** fixtures/reference/ */
export const root = fileURLToPath(new URL('../../fixtures/reference/', import.meta.url));

/** ||a - b|| / ||b||. */
export function relativeNorm(a: Tensor, b: Tensor): number {
  return scope(() => {
    const norm = (x: Tensor): number => x.to('float64').square().sum().sqrt().item();
    return norm(a.sub(b)) / Math.max(norm(b), 1e-30);
  });
}

/** Largest |a - b| over the largest |b|. */
export function scaledDifference(a: Tensor, b: Tensor): number {
  return scope(() => a.sub(b).abs().amax().item() / Math.max(b.abs().amax().item(), 1e-30));
}

/** Parameters whose gradients were recorded, whole or as sketches. */
export function recordedGradients(values: SafetensorsFile, prefix = ''): string[] {
  return values.names
    .filter((name) => name.startsWith(`${prefix}grad.`) || name.startsWith(`${prefix}sketch.`))
    .map((name) => name.slice(prefix.length).replace(/^(grad|sketch)\./, ''));
}

/** Relative difference of a gradient from the recorded one, or of its sketch. */
export function gradientDifference(
  gradient: Tensor,
  name: string,
  values: SafetensorsFile,
  prefix = '',
): number {
  return scope(() => {
    if (values.names.includes(`${prefix}grad.${name}`)) {
      return relativeNorm(gradient, values.read(`${prefix}grad.${name}`));
    }
    const flat = gradient.flatten(1);
    const signs = values.read(`${prefix}signs.${flat.shape[1]}`);
    return relativeNorm(flat.matmul(signs), values.read(`${prefix}sketch.${name}`));
  });
}
