// A small text model's step: prints its loss and the norms of its gradients. Argument: the dtype.

import { fromConfig } from '../../dist/index.js';
import { scope, setNumThreads, tensor } from '../../dist/tensor/index.js';

const [S, F] = ['sliding_attention', 'full_attention'];
const config = {
  model_type: 'gemma3n_text',
  vocab_size: 256,
  vocab_size_per_layer_input: 250,
  hidden_size: 72,
  hidden_size_per_layer_input: 8,
  intermediate_size: 200,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 24,
  num_kv_shared_layers: 1,
  sliding_window: 8,
  laurel_rank: 8,
  altup_coef_clip: 120,
  layer_types: [S, S, F, S],
  activation_sparsity_pattern: [0.5, 0, 0, 0],
};
setNumThreads(1);
const model = fromConfig(config, { seed: 3, dtype: process.argv[2] }).train();
const ids = BigInt64Array.from({ length: 2 * 37 }, (_, i) => BigInt(3 + ((i * 7919) % 240)));
const result = scope(() => {
  const inputIds = tensor(ids, [2, 37]);
  const { loss } = model.lossSum({ inputIds, labels: inputIds });
  loss.backward();
  const norms = {};
  for (const [name, { grad }] of model.namedParameters()) {
    if (grad) norms[name] = Math.hypot(...grad.to('float32').toTypedArray());
  }
  return { loss: loss.item(), norms };
});
console.log(JSON.stringify(result));
