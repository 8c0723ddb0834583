// The small base learns the questions about pictures by LoRA: low-rank updates beside frozen weights. It has never read a
// question, so the words' embeddings learn whole; and a large alpha lets adapters take the rate of full fine-tuning.

import { gemma3n, lora, pipeline } from 'sluice';
import sft from './sft.pipeline.js';

const learns = { targets: ['text', '*embed_vision*'], modulesToSave: ['embed_tokens'] };

export default pipeline({
  ...sft,
  name: 'image-lora',
  model: gemma3n('fixtures/tiny-gemma3n', { adapter: lora({ rank: 16, alpha: 96, ...learns }) }),
});
