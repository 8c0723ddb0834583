// Whose fault a faulty configuration is: that of a checkpoint that was named, not of the one who named it.

import { CheckpointError, ConfigError } from '../../errors.js';

/** Runs `read` over a checkpoint's own configuration.
 *  @throws {CheckpointError} in place of a ConfigError, with its message */
export async function ofCheckpoint<T>(read: () => T | Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof ConfigError) throw new CheckpointError(error.message, { cause: error });
    throw error;
  }
}
