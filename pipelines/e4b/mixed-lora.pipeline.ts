// Gemma 3n E4B by E2B's recipe: LoRA on pictures and speech.

import { gemma3n, lora, pipeline } from 'sluice';
import base from '../e2b/mixed-lora.pipeline.js';
import { published } from '../published.js';

export default pipeline({
  ...base,
  name: 'e4b-mixed-lora',
  model: gemma3n('google/gemma-3n-E4B-it', {
    ...published,
    adapter: lora({ rank: 16, alpha: 32, targets: ['text', 'projector'] }),
  }),
});
