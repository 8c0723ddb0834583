// The entry of the thread that writes checkpoints while the device thread trains.

import { serve } from '../device/serve.js';
import { setNumThreads } from '../tensor/index.js';
import { settleOthers, writeSnapshot } from './snapshot.js';

const api = {
  write(...[runDir, snapshot, options]: Parameters<typeof writeSnapshot>) {
    // The cores are the training's.
    setNumThreads(1);
    return writeSnapshot(runDir, snapshot, options);
  },
  settle: settleOthers,
};

/** What the host may call. */
export type CheckpointWriterApi = typeof api;

serve(api);
