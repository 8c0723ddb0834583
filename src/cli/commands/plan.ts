// `pipe plan FILE`: what a run will make of its data, without a device.

import { command } from '../main.js';
import { pipelineFileArguments } from '../pipeline-file-arguments.js';
import type { PlanArguments } from '../plan-command.js';

export default command<PlanArguments>({
  command: 'plan <file>',
  describe: 'Tell batches, tokens, memory and faults of a run beforehand',
  builder: (args) =>
    pipelineFileArguments(args)
      .option('thorough', {
        type: 'boolean',
        default: false,
        describe: 'Decode all media, so that corrupt pixels and sound are found',
      })
      .option('epoch', {
        type: 'boolean',
        default: true,
        describe: 'Count a whole epoch also where step.maxSteps ends before (--no-epoch)',
      })
      .option('cache', {
        type: 'boolean',
        default: true,
        describe: 'Use and keep scans in .sluice beside the data (--no-cache)',
      })
      .option('step-ms', { type: 'number', describe: 'Time of a step on the device: foretells its waits' })
      .option('stage-ms', {
        type: 'string',
        array: true,
        nargs: 1,
        describe: 'Time of a sample: decodeMedia=4,encode=1 (again for more stages)',
      })
      .option('source-ms', { type: 'number', describe: 'Time of a sample in the source [0]' })
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object on stdout' }),
  handler: async (args) => {
    const { planFile } = await import('../plan-command.js');
    await planFile(args);
  },
});
