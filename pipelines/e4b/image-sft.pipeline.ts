// Gemma 3n E4B by E2B's recipe: full fine-tuning of the text tower.

import { gemma3n, pipeline } from 'sluice';
import base from '../e2b/image-sft.pipeline.js';
import { published } from '../published.js';

export default pipeline({
  ...base,
  name: 'e4b-image-sft',
  model: gemma3n('google/gemma-3n-E4B-it', { ...published, freeze: ['vision', 'audio', 'embeddings'] }),
});
