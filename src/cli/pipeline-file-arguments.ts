// What every command that takes a pipeline file is called with.

import type { Argv } from 'yargs';

/** The file, and overrides of its leaves. */
export function pipelineFileArguments<T>(args: Argv<T>) {
  return args
    .positional('file', { type: 'string', demandOption: true, describe: 'The pipeline file' })
    .option('set', {
      type: 'string',
      array: true,
      nargs: 1,
      describe: 'Override a leaf: key.path=value (repeat for more)',
    });
}
