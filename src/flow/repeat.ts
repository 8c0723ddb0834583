// repeatSource: epochs.

import { FlowError } from '../errors.js';
import { checkCount } from './options.js';
import type { Cursor, Source } from './types.js';

/** A source that is read `epochs` times over, opened anew for each; Infinity never ends. An epoch without items ends the
 *  run with a FlowError, since the next ones would be as empty. */
export function repeatSource<T>(source: Source<T>, epochs: number): Source<T> {
  if (epochs !== Infinity) checkCount(`source ${source.name}: epochs`, epochs);
  return {
    ...source,
    open: async function* (signal, from) {
      const start = from as { readonly epoch: number; readonly at: Cursor } | undefined;
      for (let epoch = start?.epoch ?? 0; epoch < epochs; epoch += 1) {
        let empty = true;
        const items = source.open(signal, epoch === start?.epoch ? start.at : undefined);
        for await (const item of items) {
          empty = false;
          yield item.cursor === undefined ? item : { ...item, cursor: { epoch, at: item.cursor } };
        }
        if (empty && epochs > 1) throw emptyError(source.name, epoch);
      }
    },
  };
}

function emptyError(name: string, epoch: number): FlowError {
  return new FlowError({
    where: `source ${name}`,
    expected: `items in epoch ${epoch}`,
    received: 'none',
    remedy: 'check what the source reads',
  });
}
