// `pipe setup`: makes the engine and the addon ready. Idempotent; other commands do it by themselves when need be.

import { command } from '../main.js';
import { stopOnSignals } from '../stop.js';

export default command({
  command: 'setup',
  describe: 'Find or fetch libtorch and compile the addon',
  handler: async () => {
    const { ensureSetup } = await import('../../native/setup.js');
    const { streamLog } = await import('../../native/progress.js');
    using stop = stopOnSignals();
    try {
      const { engine, addon } = await ensureSetup({ log: streamLog(), signal: stop.signal, thorough: true });
      console.log(`libtorch ${engine.version} (${engine.origin}) in ${engine.root}\naddon ${addon}`);
    } catch (error) {
      throw stop.signal.aborted ? stop.signal.reason : error;
    }
  },
});
