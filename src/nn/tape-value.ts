// A tensor between the segments of a tape: what is kept of it until the first of its users was derived, and the gradient
// that has come to it from them.

import { type Tensor, empty, own, noGrad, op, scope } from '../tensor/index.js';

const emptyOp = op('aten::empty.memory_format');
const copyOp = op('aten::copy_');
const toDeviceOp = op('aten::to.device');

export class TapeValue {
  /** As it was given; its own handle may go once nothing of the forward pass uses it. */
  readonly #tensor: Tensor;
  #stored: Tensor | undefined;
  #device: string | undefined;
  /** The first segment that uses it: the last to be derived. */
  #firstUser = -1;
  #gradient: Tensor | undefined;
  #source: { readonly value: TapeValue; readonly find: (source: Tensor) => Tensor } | undefined;

  constructor(
    tensor: Tensor,
    readonly learns: boolean,
  ) {
    this.#tensor = tensor;
  }

  /** A tensor of the same elements to compute with: a leaf that has a gradient afterwards, where it learns. */
  leaf(): Tensor {
    const leaf = this.#present();
    if (this.learns) leaf.requiresGrad = true;
    return leaf;
  }

  /** Its elements are in another value too: that is kept in its stead. */
  isFoundIn(value: TapeValue, find: (source: Tensor) => Tensor): void {
    this.#source = { value, find };
  }

  #present(): Tensor {
    if (!this.#tensor.disposed) return this.#tensor.detach();
    const source = this.#source;
    if (source) return noGrad(() => source.find(source.value.#present()).contiguous());
    if (!this.#stored) throw new Error('a value between segments that is not kept');
    return this.#device === undefined
      ? this.#stored.detach()
      : toDeviceOp(this.#stored, this.#device, this.#stored.dtype, true);
  }

  /** Keeps it for a segment. @param offload in the host's memory, where it was made by a segment on another device */
  store(segment: number, offload: boolean): void {
    if (this.#source) this.#source.value.store(segment, offload);
    if (this.#source || this.#stored) return;
    this.#firstUser = segment;
    const device = offload && this.learns ? this.#tensor.device : 'cpu';
    if (device === 'cpu') {
      this.#stored = own(this.#tensor.detach());
      return;
    }
    this.#device = device;
    this.#stored = noGrad(() => scope(() => own(toPinned(this.#tensor))));
  }

  /** Frees what is kept, if the segment is the first user. */
  release(segment: number): void {
    if (segment !== this.#firstUser) return;
    this.#stored?.dispose();
    this.#stored = undefined;
  }

  /** Adds a gradient; it belongs to this value from now on. */
  accumulate(gradient: Tensor): void {
    if (this.#gradient) this.#gradient.add_(gradient);
    else this.#gradient = own(gradient);
  }

  /** The gradient so far, for the caller to free. */
  takeGradient(): Tensor | undefined {
    const gradient = this.#gradient;
    this.#gradient = undefined;
    return gradient;
  }

  dispose(): void {
    this.#stored?.dispose();
    this.#gradient?.dispose();
    this.#stored = this.#gradient = undefined;
  }
}

/** A copy in page-locked memory, which the device writes by itself; in plain memory where the engine has no other. */
function toPinned(tensor: Tensor): Tensor {
  const { shape, dtype } = tensor;
  if (!tensor.device.startsWith('cuda')) return empty(shape, { dtype, device: 'cpu' }).copy_(tensor);
  const pinned = emptyOp(shape, dtype, undefined, 'cpu', true);
  return copyOp(pinned, tensor, true);
}
