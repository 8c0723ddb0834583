// `pipe init [FILE]`: writes a pipeline file that fits data and memory.

import type { InitArguments } from '../init-command.js';
import { command } from '../main.js';

export default command<InitArguments>({
  command: 'init [file]',
  describe: 'Write a pipeline file that fits your data and memory',
  builder: (args) =>
    args
      .positional('file', { type: 'string', describe: 'The file to write [TASK-METHOD.pipeline.ts]' })
      .option('task', { type: 'string', describe: 'image, audio, mixed or text' })
      .option('data', {
        type: 'string',
        array: true,
        nargs: 1,
        describe: 'A file, a pattern or an address of .parquet, .jsonl or .arrow (repeat for more)',
      })
      .option('model', {
        type: 'string',
        describe: 'A folder or a repository of the Hub [google/gemma-3n-E2B-it]',
      })
      .option('method', { type: 'string', describe: 'full, lora, dora or qlora [the first that fits]' })
      .option('memory', { type: 'string', describe: "The device's memory, such as 24GiB [this machine's]" })
      .option('rank', { type: 'number', describe: 'Of adapters [16, or 8 where it must be]' })
      .option('yes', {
        type: 'boolean',
        default: false,
        describe: 'Take what is suggested for what no flag says, and ask nothing of it',
      }),
  handler: async (args) => {
    const { initFile } = await import('../init-command.js');
    await initFile(args);
  },
});
