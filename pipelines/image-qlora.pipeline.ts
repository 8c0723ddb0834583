// The job of image-lora.pipeline.ts with the frozen projections in NF4: a quarter of their memory.

import { gemma3n, lora, pipeline } from 'sluice';
import sft from './sft.pipeline.js';

const learns = { targets: ['text', '*embed_vision*'], modulesToSave: ['embed_tokens'] };

export default pipeline({
  ...sft,
  name: 'image-qlora',
  model: gemma3n('fixtures/tiny-gemma3n', {
    quantise: 'nf4',
    adapter: lora({ rank: 16, alpha: 96, ...learns }),
  }),
});
