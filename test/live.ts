// How many tensors live, told of a moment: what earlier tests left behind may be collected at any time, and would be
// counted as freed.

import { liveTensors } from '../src/tensor/index.js';

/** Tensors that live once all that nobody holds is collected. */
export async function settledTensors(): Promise<number> {
  let count = liveTensors();
  for (;;) {
    gc!();
    // what runs when an object is collected does so in a turn of its own
    await new Promise((resolve) => setTimeout(resolve, 5));
    if (liveTensors() === count) return count;
    count = liveTensors();
  }
}
