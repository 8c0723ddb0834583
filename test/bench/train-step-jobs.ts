// The jobs of the training step's benchmark, and how many operations their products take.

export interface StepJob {
  readonly name: string;
  /** The text tower's, as in config.json. */
  readonly config: Readonly<Record<string, number | readonly number[]>>;
  readonly batch: number;
  readonly length: number;
  /** The last tokens of each row. */
  readonly labelled: number;
  readonly adapter: 'lora' | 'dora' | null;
  readonly dtype: 'bfloat16' | 'float32';
}

const SPARSITY = [0.95, 0.95, 0.95, 0, 0, 0, 0, 0, 0, 0];

/** Hidden 512, 10 layers of which 5 share, 32,768 words: the text tower that steps are measured on. */
export const MID_CONFIG = {
  vocab_size: 32768,
  vocab_size_per_layer_input: 32768,
  hidden_size: 512,
  intermediate_size: 2048,
  num_hidden_layers: 10,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  head_dim: 64,
  sliding_window: 256,
  hidden_size_per_layer_input: 64,
  num_kv_shared_layers: 5,
  laurel_rank: 16,
  activation_sparsity_pattern: SPARSITY,
};

/** 4 x 512 tokens, a quarter of them labelled. */
const MID = { config: MID_CONFIG, batch: 4, length: 512, labelled: 128 };

/** E2B's widths, 10 layers, 262,400 words, 1 x 512 tokens, a quarter of them labelled. */
const SLICE = {
  config: {
    vocab_size: 262_400,
    vocab_size_per_layer_input: 262_144,
    hidden_size: 2048,
    intermediate_size: 8192,
    num_hidden_layers: 10,
    num_attention_heads: 8,
    num_key_value_heads: 2,
    head_dim: 256,
    sliding_window: 512,
    hidden_size_per_layer_input: 256,
    num_kv_shared_layers: 5,
    laurel_rank: 64,
    activation_sparsity_pattern: SPARSITY,
  },
  batch: 1,
  length: 512,
  labelled: 128,
};

export const JOBS: readonly StepJob[] = [
  { ...MID, name: 'mid, LoRA, bfloat16', adapter: 'lora', dtype: 'bfloat16' },
  { ...MID, name: 'mid, LoRA, float32', adapter: 'lora', dtype: 'float32' },
  { ...MID, name: 'mid, full, bfloat16', adapter: null, dtype: 'bfloat16' },
  { ...MID, name: 'mid, full, float32', adapter: null, dtype: 'float32' },
  { ...SLICE, name: 'slice, LoRA, bfloat16', adapter: 'lora', dtype: 'bfloat16' },
];

/** Operations of the products with weights that a step cannot do without: forward, the inputs' gradient and, where all
 *  learns, the weights'. The output head, and all behind the last layer's attention, see labelled rows only. Attention's own products are not among them. */
export function productFlops({ config, batch, length, labelled, adapter }: StepJob): number {
  const size = (key: string): number => Number(config[key]);
  const [hidden, layers] = [size('hidden_size'), size('num_hidden_layers')];
  const heads = size('num_attention_heads') * size('head_dim');
  const keys = size('num_key_value_heads') * size('head_dim');
  const perLayer = size('hidden_size_per_layer_input');
  const afterAttention =
    hidden * heads +
    3 * hidden * size('intermediate_size') +
    2 * hidden * size('laurel_rank') +
    2 * hidden * perLayer;
  // behind the last layer's attention, of labelled rows alone
  const share = labelled / length;
  const each = (layers - 1 + share) * afterAttention + layers * hidden * heads;
  const whole = each + 2 * (layers - size('num_kv_shared_layers')) * hidden * keys + 3 * share * hidden ** 2;
  const before = layers * perLayer * hidden + 3 * hidden ** 2; // of frozen embeddings: without a gradient
  const head = hidden * size('vocab_size') * batch * labelled;
  const tokens = batch * length;
  const passes = adapter ? 2 : 3;
  return 2 * (tokens * (whole * passes + before * (adapter ? 1 : 3)) + head * passes);
}
