// The same by DoRA: direction and magnitude of each weight learn apart.

import { dora, gemma3n, pipeline } from 'sluice';
import { adapterStep, published } from '../published.js';
import base from './image-sft.pipeline.js';

export default pipeline({
  ...base,
  name: 'e2b-image-dora',
  model: gemma3n('google/gemma-3n-E2B-it', { ...published, adapter: dora({ rank: 16, alpha: 32 }) }),
  step: adapterStep,
});
