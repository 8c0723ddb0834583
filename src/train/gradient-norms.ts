// The parts of a model that a gradient's norm is told for, and the norms of parts from those of tensors.

/** Parts of a model by what they do; norms that belong to none of the others are `norms`. */
export const GRADIENT_PARTS = [
  'embeddings',
  'perLayerEmbeddings',
  'attention',
  'mlp',
  'altup',
  'laurel',
  'norms',
  'vision',
  'audio',
  'projectors',
  'adapters',
] as const;
export type GradientPart = (typeof GRADIENT_PARTS)[number];

/** By the first that matches a name behind the prefix of its tower. */
const TEXT_PARTS: readonly (readonly [RegExp, GradientPart])[] = [
  [/(^|\.)(embed_tokens_per_layer|per_layer_\w+|post_per_layer_input_norm)\./, 'perLayerEmbeddings'],
  [/(^|\.)(embed_tokens|lm_head)\./, 'embeddings'],
  [/\.self_attn\./, 'attention'],
  [/\.mlp\./, 'mlp'],
  [/(^|\.)(altup|altup_projections|altup_unembed_projections)\./, 'altup'],
  [/\.laurel\./, 'laurel'],
];

/** The part that a parameter belongs to. A norm inside of one (queries', the router's, LAuReL's) is of that part,
 *  and so is a module that learns whole beside an adapter, under its own name.
 *  @param name Hugging Face's, or PEFT's of an adapter's tensor */
export function gradientPart(name: string): GradientPart {
  if (/\.lora_(A|B|magnitude_vector)\./.test(name)) return 'adapters';
  if (/(^|\.)vision_tower\./.test(name)) return 'vision';
  if (/(^|\.)audio_tower\./.test(name)) return 'audio';
  if (/(^|\.)embed_(vision|audio)\./.test(name)) return 'projectors';
  return TEXT_PARTS.find(([pattern]) => pattern.test(name))?.[1] ?? 'norms';
}

/** Norms of tensors as norms of the parts that they belong to; parts without any are missing.
 *  @param norms undefined where there is none
 *  @param parts of each tensor */
export function normsByPart(
  norms: readonly (number | undefined)[],
  parts: readonly GradientPart[],
): Partial<Record<GradientPart, number>> {
  const squares = new Map<GradientPart, number>();
  for (const [i, part] of parts.entries()) {
    const norm = norms[i];
    if (norm !== undefined) squares.set(part, (squares.get(part) ?? 0) + norm ** 2);
  }
  return Object.fromEntries(
    GRADIENT_PARTS.filter((part) => squares.has(part)).map((part) => [
      part,
      Math.sqrt(squares.get(part) ?? 0),
    ]),
  );
}
