// Field paths <-> Hugging Face's names: `model.languageModel.layers.0.selfAttn.qProj.weight` is
// `model.language_model.layers.0.self_attn.q_proj.weight`. Fields are named so that this holds mechanically.

/** The name that checkpoints use for a path of fields: of a parameter, or of a module. */
export function checkpointName(path: string): string {
  return path.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
