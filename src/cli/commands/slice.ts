// `pipe slice CHECKPOINT`: a smaller model out of a MatFormer.

import { ConfigError } from '../../errors.js';
import { command } from '../main.js';
import { stopOnSignals } from '../stop.js';

interface Options {
  checkpoint: string;
  out: string;
  preset: string | undefined;
  layers: string | undefined;
  'intermediate-size': string | undefined;
  'max-shard-bytes': number | undefined;
  revision: string | undefined;
  json: boolean;
}

export default command<Options>({
  command: 'slice <checkpoint>',
  describe: 'Extract a smaller model: layers dropped, feed-forwards narrowed',
  builder: (args) =>
    args
      .positional('checkpoint', {
        type: 'string',
        demandOption: true,
        describe: 'A folder, or a repository of the Hub',
      })
      .option('out', { type: 'string', demandOption: true, describe: 'Folder for the smaller model' })
      .option('preset', {
        type: 'string',
        describe:
          "One of Google's slices of E4B: e2b, e1.96b, e2.54b ... e3.79b, or e2.49b-block ... e3.79b-block",
      })
      .option('layers', { type: 'string', describe: 'Layers that stay: 0-19,25-34 [all]' })
      .option('intermediate-size', {
        type: 'string',
        describe:
          'Feed-forward width, for all layers that stay or a list: 8192, or 8192x20,16384x15 [as it is]',
      })
      .option('max-shard-bytes', { type: 'number', describe: 'Of one file of weights [5e9]' })
      .option('revision', { type: 'string', describe: 'Of a repository' })
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object on stdout' }),
  handler: async ({ checkpoint, out, preset, layers, revision, json, ...sizes }) => {
    const { 'intermediate-size': intermediateSize, 'max-shard-bytes': maxShardBytes } = sizes;
    const slice = {
      ...(preset !== undefined && { preset: preset as never }), // checked with the rest
      ...(layers !== undefined && { layers: parseLayers(layers) }),
      ...(intermediateSize !== undefined && { intermediateSizes: parseSizes(intermediateSize) }),
    };
    const { sliceMatFormer } = await import('../../models/gemma3n/index.js');
    using stop = stopOnSignals();
    const {
      numParameters,
      layers: kept,
      intermediateSizes,
      numKvSharedLayers,
    } = await sliceMatFormer(checkpoint, slice, out, {
      signal: stop.signal,
      ...(maxShardBytes !== undefined && { maxShardBytes }),
      ...(revision !== undefined && { revision }),
    });
    if (json) {
      console.log(JSON.stringify({ out, layers: kept, intermediateSizes, numKvSharedLayers, numParameters }));
      return;
    }
    const [least, most] = [Math.min(...intermediateSizes), Math.max(...intermediateSizes)];
    const widths = least === most ? `${most}` : `${least} to ${most}`;
    console.log(
      `${out}: ${kept.length} layers (${numKvSharedLayers} share keys and values), feed-forwards of ${widths}, ` +
        `${numParameters.toLocaleString('en-US')} parameters`,
    );
  },
});

/** '0-2,5' -> [0, 1, 2, 5] */
function parseLayers(text: string): number[] {
  return text.split(',').flatMap((range) => {
    const [, first = '', last = first] = /^\s*(\d{1,6})(?:-(\d{1,6}))?\s*$/.exec(range) ?? [];
    const [from, to] = [Number(first), Number(last)];
    if (first === '' || to < from || to - from > 100_000) throw unreadable('--layers', range, '0-19,25-34');
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  });
}

/** '8192' -> 8192; '8192x2,16384' -> [8192, 8192, 16384] */
function parseSizes(text: string): number | number[] {
  const sizes = text.split(',').flatMap((one) => {
    const [, size, times = '1'] = /^\s*(\d{1,9})(?:x(\d{1,4}))?\s*$/.exec(one) ?? [];
    if (size === undefined) throw unreadable('--intermediate-size', one, '8192, or 8192x20,16384x15');
    return new Array<number>(Number(times)).fill(Number(size));
  });
  return sizes.length === 1 && !text.includes('x') ? (sizes[0] ?? 0) : sizes;
}

function unreadable(where: string, received: string, example: string): ConfigError {
  return new ConfigError({
    where,
    expected: `numbers such as ${example}`,
    received: JSON.stringify(received),
    remedy: 'separate them by commas',
  });
}
