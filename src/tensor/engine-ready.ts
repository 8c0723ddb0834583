// Whether the engine can be had without a set-up, for those who can do without it.

import { freshNote } from '../native/note.js';

/** True where a first tensor neither fetches nor compiles anything. */
export function isEngineReady(): boolean {
  return freshNote(process.env) !== undefined;
}
