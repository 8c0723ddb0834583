// The default generator of this thread's engine.

import { Tensor, engine, scope } from './tensor.js';
import { tensor } from './create.js';

/** Seeds the engine's generators. @param seed a whole number */
export function manualSeed(seed: number): void {
  engine().manualSeed(seed);
}

/** The CPU generator's state, to be stored and given to `setRandomState` later. */
export function randomState(): Uint8Array {
  return scope(() => new Tensor(engine().randomState()).toTypedArray() as Uint8Array);
}

/** Restores a state that `randomState` gave. */
export function setRandomState(state: Uint8Array): void {
  scope(() => {
    new Tensor(engine().randomState(tensor(state, [state.length], 'uint8').live()));
  });
}
