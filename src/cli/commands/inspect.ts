// `pipe inspect CHECKPOINT`: what a checkpoint is, what it needs, and what is odd about its weights.

import { command } from '../main.js';
import { stopOnSignals } from '../stop.js';

interface Options {
  checkpoint: string;
  batch: number;
  length: number;
  images: number;
  clips: number;
  dtype: string | undefined;
  rank: number;
  freeze: string[] | undefined;
  weights: boolean | undefined;
  revision: string | undefined;
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
        describe: 'A folder, a config.json, or a repository of the Hub',
      })
      .option('batch', { type: 'number', default: 1, describe: 'Rows of the batch that memory is told for' })
      .option('length', { type: 'number', default: 1024, describe: 'Tokens of a row' })
      .option('images', { type: 'number', default: 0, describe: 'Images in the batch' })
      .option('clips', { type: 'number', default: 0, describe: 'Sound clips in the batch' })
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
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object on stdout' }),
  handler: async ({
    checkpoint,
    json,
    batch,
    length,
    images,
    clips,
    dtype,
    rank,
    freeze,
    weights,
    revision,
  }) => {
    const [{ inspectCheckpoint }, { inspectionText }] = await Promise.all([
      import('../../models/gemma3n/index.js'),
      import('../inspection.js'),
    ]);
    using stop = stopOnSignals();
    const found = await inspectCheckpoint(checkpoint, {
      ...{ batch, length, images, clips, rank, weights, revision, freeze, signal: stop.signal },
      dtype: dtype as never, // checked with the rest
    } as Parameters<typeof inspectCheckpoint>[1]);
    process.stdout.write(json ? `${JSON.stringify(found)}\n` : inspectionText(found));
  },
});
