// Gemma 3n E4B by E2B's recipe: QLoRA.

import { gemma3n, lora, pipeline } from 'sluice';
import base from '../e2b/image-lora.pipeline.js';
import { published } from '../published.js';

export default pipeline({
  ...base,
  name: 'e4b-image-qlora',
  model: gemma3n('google/gemma-3n-E4B-it', {
    ...published,
    quantise: 'nf4',
    adapter: lora({ rank: 16, alpha: 32 }),
  }),
});
