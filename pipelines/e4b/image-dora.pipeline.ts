// Gemma 3n E4B by E2B's recipe: DoRA.

import { dora, gemma3n, pipeline } from 'sluice';
import base from '../e2b/image-dora.pipeline.js';
import { published } from '../published.js';

export default pipeline({
  ...base,
  name: 'e4b-image-dora',
  model: gemma3n('google/gemma-3n-E4B-it', { ...published, adapter: dora({ rank: 16, alpha: 32 }) }),
});
