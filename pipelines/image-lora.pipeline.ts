// The small base learns the questions about pictures by LoRA: a fiftieth of its weights learn, beside frozen ones.

import { gemma3n, lora, pipeline } from 'sluice';
import sft from './sft.pipeline.js';

export default pipeline({
  ...sft,
  name: 'image-lora',
  model: gemma3n('fixtures/tiny-gemma3n', {
    adapter: lora({ rank: 8, alpha: 16, targets: ['text', 'projector'] }),
  }),
});
