// `pipe generate CHECKPOINT`: answers a prompt, or chats.

import { command } from '../main.js';
import type { GenerateArguments } from '../generate-command.js';

export default command<GenerateArguments>({
  command: 'generate <checkpoint>',
  describe: 'Answer a prompt with text, pictures and sound, or chat',
  builder: (args) =>
    args
      .positional('checkpoint', {
        type: 'string',
        demandOption: true,
        describe: 'A model folder, or a repository of the Hugging Face Hub',
      })
      .option('prompt', { type: 'string', nargs: 1, describe: 'The text; - reads it from stdin' })
      .option('image', {
        type: 'string',
        array: true,
        nargs: 1,
        describe: 'A picture before the text (repeat for more)',
      })
      .option('audio', {
        type: 'string',
        array: true,
        nargs: 1,
        describe: 'A clip before the text (repeat for more); pictures and clips keep the order given',
      })
      .option('system', { type: 'string', nargs: 1, describe: 'The instruction before the first turn' })
      .option('interactive', { type: 'boolean', default: false, describe: 'Chat; /help lists its commands' })
      .option('max-new-tokens', { type: 'number', default: 1024, describe: 'Of an answer' })
      .option('stop', {
        type: 'string',
        array: true,
        nargs: 1,
        describe: 'Text that ends an answer, and is cut off (repeat for more)',
      })
      .option('repetition-penalty', {
        type: 'number',
        describe: 'Above 1 discourages tokens that were there before',
      })
      .option('temperature', { type: 'number', describe: 'Below 1 sharpens, above 1 flattens' })
      .option('top-k', { type: 'number', describe: 'Draw among the likeliest k' })
      .option('top-p', { type: 'number', describe: 'Draw among the likeliest that reach this sum' })
      .option('min-p', { type: 'number', describe: "Draw among those with this share of the likeliest's" })
      .option('seed', { type: 'number', describe: 'The same seed draws the same answer' })
      .group(
        ['temperature', 'top-k', 'top-p', 'min-p', 'seed'],
        'Drawing (with any of these; else the likeliest token is taken):',
      )
      .option('dtype', {
        choices: ['float32', 'bfloat16', 'float16', 'float64'] as const,
        describe: 'Of the weights [as config.json says]',
      })
      .option('device', { type: 'string', default: 'cpu', describe: 'cpu, cuda, cuda:1' })
      .option('revision', { type: 'string', describe: 'Of a repository' })
      .option('offline', { type: 'boolean', describe: 'Take a repository from the cache alone' })
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object a line on stdout' }),
  handler: async (args) => {
    const { runGenerate } = await import('../generate-command.js');
    await runGenerate(args);
  },
});
