// The same by QLoRA: LoRA over text projections in NF4, a quarter of their bytes.

import { gemma3n, lora, pipeline } from 'sluice';
import { adapterStep, published } from '../published.js';
import base from './image-sft.pipeline.js';

export default pipeline({
  ...base,
  name: 'e2b-image-qlora',
  model: gemma3n('google/gemma-3n-E2B-it', {
    ...published,
    quantise: 'nf4',
    adapter: lora({ rank: 16, alpha: 32 }),
  }),
  step: adapterStep,
});
