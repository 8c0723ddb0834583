// `pipe eval FILE`: runs only the evaluations that a pipeline file declares.

import { command } from '../main.js';
import { pipelineFileArguments } from '../pipeline-file-arguments.js';
import type { RunArguments } from '../run-command.js';

export default command<RunArguments>({
  command: 'eval <file>',
  describe: 'Evaluate a checkpoint as a pipeline file declares',
  builder: (args) =>
    pipelineFileArguments(args)
      .option('out', { type: 'string', describe: 'Folder for all that the run writes [runs/NAME]' })
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object a line on stdout' }),
  handler: async (args) => {
    const { runFile } = await import('../run-command.js');
    await runFile(args, 'eval');
  },
});
