// Modules whose weights have shapes and no memory until they are given some: a loader decides for each where it comes from.

import { type TensorOptions, currentDefaults } from '../tensor/index.js';

/** 'tables': embeddings. 'matrices': linear layers and convolutions too. */
export type Deferral = 'tables' | 'matrices';

let current: Deferral | undefined;

/** Builds modules whose weights of the chosen kinds lie on the 'meta' device: give each one with `allocate`, or what else
 *  the module takes. */
export function withDeferred<T>(deferral: Deferral, build: () => T): T {
  const before = current;
  current = deferral;
  try {
    return build();
  } finally {
    current = before;
  }
}

/** Where the weight of a new module lies. */
export function placeOfNew(kind: Deferral): TensorOptions {
  const isDeferred = current === 'matrices' || current === kind;
  return isDeferred ? { ...currentDefaults(), device: 'meta' } : currentDefaults();
}
