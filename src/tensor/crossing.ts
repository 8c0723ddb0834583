// Tensors that cross to another thread of this process without a copy: numbers stand for them on the way.

import { TensorError } from '../errors.js';
import { Tensor, attempt, engine } from './tensor.js';

/** A tensor on its way to another thread; plain, so that it can be posted there. */
export type SentTensor = number & { readonly __sent?: never };

/** Lets another thread take a tensor, once; `receiveTensor` does. This thread's handle stays. As long as the other may
 *  read it, nobody must write to it. Its memory lives until both have freed theirs. */
export function sendTensor(tensor: Tensor): SentTensor {
  return attempt('sendTensor', [tensor], () => engine().sendTensor(tensor.live()));
}

/** Takes a tensor that a thread has sent; it has no gradient. @throws {TensorError} when it was taken before */
export function receiveTensor(sent: SentTensor): Tensor {
  const handle = engine().receiveTensor(sent);
  if (handle > 0) return new Tensor(handle);
  throw new TensorError({
    where: 'receiveTensor',
    expected: 'a tensor that was sent and not yet taken',
    received: `${sent}, where none waits`,
    remedy: 'send it again for each thread that takes it',
  });
}

/** Frees tensors that were sent, as far as nobody has taken them. */
export function forgetSent(sent: Iterable<SentTensor>): void {
  for (const number of sent) engine().free(engine().receiveTensor(number));
}
