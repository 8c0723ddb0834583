// Pictures, clips and text alone in one run, by LoRA on the text tower; what the base knows nothing of learns whole.

import { gemma3n, lora, pipeline } from 'sluice';
import mixed from './mixed.pipeline.js';

export default pipeline({
  ...mixed,
  name: 'mixed-lora',
  model: gemma3n('fixtures/tiny-gemma3n', {
    adapter: lora({
      rank: 16,
      alpha: 96,
      modulesToSave: ['audio_tower', 'embed_audio', 'embed_vision', 'embed_tokens'],
    }),
  }),
});
