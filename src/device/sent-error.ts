// Errors across threads. Structured clone would keep neither their class nor their code.

import * as errors from '../errors.js';

/** @internal An error as plain values. */
export interface SentError {
  readonly name: string;
  readonly message: string;
  readonly code: string;
  readonly stack?: string | undefined;
  readonly cause?: SentError | undefined;
}

/** @internal Anything thrown, as plain values; its causes too. */
export function flatten(thrown: unknown, depth = 0): SentError {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const { code } = error as { code?: unknown };
  return {
    name: error.name,
    message: error.message,
    code: typeof code === 'string' ? code : 'UNKNOWN',
    stack: error.stack,
    // Deep enough for any chain that is meant, and the end of one that bites its tail.
    cause: error.cause === undefined || depth === 8 ? undefined : flatten(error.cause, depth + 1),
  };
}

/** Our classes by code: those that other folders derive from them come back as these. */
const CLASSES = new Map(
  Object.values(errors)
    .filter((value) => typeof value === 'function' && value.prototype instanceof errors.SluiceError)
    .map((value) => value as typeof errors.SluiceError)
    .map((Class) => [new Class('').code, Class]),
);

/** @internal The error as it was thrown: of its class in errors.ts where it has one, of Error otherwise. */
export function revive({ name, message, code, stack, cause }: SentError): Error {
  const Class = CLASSES.get(code) ?? Error;
  const error = new Class(message, cause && { cause: revive(cause) });
  return Object.assign(error, { name, code }, stack && { stack });
}
