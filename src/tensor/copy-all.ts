// Many tensors copied at once.

import { Tensor, attempt, engine } from './tensor.js';

/** Copies each source into the target at its place; no gradients are recorded. Cores that others use as well do not hold up
 *  the copy, as they do one tensor's after the other.
 *  @param targets of the sources' shapes; may be of another dtype or device
 *  @throws {TensorError} when numbers or shapes differ */
export function copyAll(sources: readonly Tensor[], targets: readonly Tensor[]): void {
  const handles = (tensors: readonly Tensor[]) => tensors.map((tensor) => tensor.live());
  attempt('copyAll', [], () => engine().copyTensors(handles(sources), handles(targets)));
}
