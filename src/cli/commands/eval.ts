// `pipe eval FILE`: runs only the evaluations that a pipeline file declares.

import { command } from '../main.js';
import type { RunArguments } from '../run-command.js';

export default command<RunArguments>({
  command: 'eval <file>',
  describe: 'Evaluate a checkpoint as a pipeline file declares',
  builder: (args) =>
    args
      .positional('file', { type: 'string', demandOption: true, describe: 'The pipeline file' })
      .option('set', {
        type: 'string',
        array: true,
        nargs: 1,
        describe: 'Override a leaf: key.path=value (repeat for more)',
      })
      .option('out', { type: 'string', describe: 'Folder for all that the run writes [runs/NAME]' })
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object a line on stdout' }),
  handler: async (args) => {
    const { runFile } = await import('../run-command.js');
    await runFile(args, 'eval');
  },
});
