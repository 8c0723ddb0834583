// `pipe inspect CHECKPOINT`: what a checkpoint is, what it needs, and what is odd about its weights.

import { ConfigError } from '../../errors.js';
import { command } from '../main.js';
import { stopOnSignals } from '../stop.js';

interface Options {
  checkpoint: string;
  batch: number | undefined;
  length: number | undefined;
  images: number | undefined;
  clips: number | undefined;
  dtype: string | undefined;
  rank: number;
  freeze: string[] | undefined;
  weights: boolean | undefined;
  revision: string | undefined;
  set: string[] | undefined;
  json: boolean;
}

export default command<Options>({
  command: 'inspect <checkpoint>',
  describe: "Show a checkpoint's parameters, layers, memory needs and odd weights",
  builder: (args) =>
    args
      .positional('checkpoint', {
        type: 'string',
        demandOption: true,
        describe: 'A folder, a config.json, a repository of the Hub, or a pipeline file',
      })
      .option('batch', {
        type: 'number',
        describe: "Rows of the batch that memory is told for [1, or the file's]",
      })
      .option('length', { type: 'number', describe: "Tokens of a row [1024, or the file's]" })
      .option('images', { type: 'number', describe: "Images in the batch [0, or the file's]" })
      .option('clips', { type: 'number', describe: "Sound clips in the batch [0, or the file's]" })
      .option('dtype', { type: 'string', describe: "Of weights and computation [config.json's]" })
      .option('rank', { type: 'number', default: 16, describe: 'Of low-rank adapters' })
      .option('freeze', {
        type: 'string',
        array: true,
        nargs: 1,
        describe: 'A part that does not learn in full fine-tuning: vision, projector, audio, embeddings',
      })
      .option('weights', { type: 'boolean', describe: 'Read the weights [where a folder has them]' })
      .option('revision', { type: 'string', describe: 'Of a repository' })
      .option('set', {
        type: 'string',
        array: true,
        nargs: 1,
        describe: 'Of a pipeline file, override a leaf: key.path=value (repeat for more)',
      })
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object on stdout' }),
  handler: async ({ checkpoint, json, set, dtype, freeze, rank, weights, revision, ...load }) => {
    const [{ inspectCheckpoint }, { inspectPipeline }, { inspectionText }] = await Promise.all([
      import('../../models/gemma3n/index.js'),
      import('../recipe-inspection.js'),
      import('../inspection.js'),
    ]);
    using stop = stopOnSignals();
    const { batch, length, images, clips } = load;
    const { signal } = stop;
    const isFile = /\.[cm]?[jt]s$/.test(checkpoint);
    if (!isFile && set) {
      throw new ConfigError({
        where: '--set',
        expected: 'a pipeline file, whose leaves it overrides',
        received: checkpoint,
        remedy: 'leave it out',
      });
    }
    const found = isFile
      ? await inspectPipeline(checkpoint, set ?? [], { batch, length, images, clips, signal })
      : await inspectCheckpoint(checkpoint, {
          ...{ batch, length, images, clips, rank, weights, revision, freeze, signal },
          dtype: dtype as never, // checked with the rest
        } as Parameters<typeof inspectCheckpoint>[1]);
    process.stdout.write(json ? `${JSON.stringify(found)}\n` : inspectionText(found));
  },
});
