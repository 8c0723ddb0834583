// The entry of the thread that writes checkpoints while the device thread trains.

import { setPriority } from 'node:os';
import { serve } from '../device/serve.js';
import { setNumThreads } from '../tensor/index.js';
import { settleOthers, writeSnapshot } from './snapshot.js';

/** Of this thread alone: on other systems than Linux the number 0 stands for the process. The device thread's kernels wait
 *  for each other at every operation, so that a core that is shared fairly slows them all. */
const NICENESS = 10;

if (process.platform === 'linux') setPriority(0, NICENESS);

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
