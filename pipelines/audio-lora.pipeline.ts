// Spoken digits by LoRA on the text tower. The audio tower knows nothing yet, and neither does the base any of the words: they
// learn whole, beside the adapter, and are saved with it.

import { gemma3n, lora, pipeline } from 'sluice';
import audio from './audio.pipeline.js';

export default pipeline({
  ...audio,
  name: 'audio-lora',
  model: gemma3n('fixtures/tiny-gemma3n', {
    adapter: lora({ rank: 16, alpha: 96, modulesToSave: ['audio_tower', 'embed_audio', 'embed_tokens'] }),
  }),
});
