// The small job's model with weights, to begin from.

import { join } from 'node:path';
import { fromConfig, savePretrained } from '../../src/index.js';
import { loadConfig } from '../../src/models/gemma3n/index.js';
import { modelFolder, temporaryFolder } from './job.js';

/** A folder of its own. */
export async function savedModel(): Promise<string> {
  const folder = join(temporaryFolder(), 'base');
  const model = fromConfig(await loadConfig(modelFolder()), { seed: 3 });
  await savePretrained(model, folder);
  model.dispose();
  return folder;
}
