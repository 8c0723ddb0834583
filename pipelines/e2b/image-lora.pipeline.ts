// The same by LoRA: some twenty million weights learn beside frozen ones.

import { gemma3n, lora, pipeline } from 'sluice';
import { adapterStep, published } from '../published.js';
import base from './image-sft.pipeline.js';

export default pipeline({
  ...base,
  name: 'e2b-image-lora',
  model: gemma3n('google/gemma-3n-E2B-it', { ...published, adapter: lora({ rank: 16, alpha: 32 }) }),
  step: adapterStep,
});
