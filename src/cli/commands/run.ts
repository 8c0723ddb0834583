// `pipe run FILE`: trains as a pipeline file declares.

import { command } from '../main.js';
import { pipelineFileArguments } from '../pipeline-file-arguments.js';
import type { RunArguments } from '../run-command.js';

export default command<RunArguments>({
  command: 'run <file>',
  describe: 'Run a pipeline file',
  builder: (args) =>
    pipelineFileArguments(args)
      .option('out', { type: 'string', describe: 'Folder for all that the run writes [runs/NAME]' })
      .option('resume', { type: 'boolean', default: false, describe: 'Continue after the newest checkpoint' })
      .option('resume-anyway', {
        type: 'boolean',
        default: false,
        describe: 'The same, also where data, seed or flow have changed',
      })
      .option('ceiling', {
        type: 'boolean',
        default: false,
        describe: 'Train on one cached batch, to time what an infinitely fast feed would give',
      })
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object a line on stdout' }),
  handler: async (args) => {
    const { runFile } = await import('../run-command.js');
    await runFile(args, 'run');
  },
});
