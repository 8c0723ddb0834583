// config.json and generation_config.json as they are written beside weights: what was read, with the dtype that the
// weights now have.

import type { DType } from '../../tensor/index.js';
import type { Gemma3nConfig, JsonObject } from './config.js';
import { withBlockDictionaries } from './mobilenet-args.js';

/** Keys whose values the reference takes as floats alone: it refuses 30 where it wants 30.0. */
const floatKeys = new Set([
  'activation_sparsity_pattern',
  'altup_coef_clip',
  'conf_attention_logit_cap',
  'conf_residual_weight',
  'factor',
  'final_logit_softcapping',
  'gradient_clipping',
  'initializer_range',
  'rms_norm_eps',
  'rope_local_base_freq',
  'rope_theta',
  'sscp_conv_group_norm_eps',
]);
const floatMark = '\u0000';

/** The text of config.json. @param dtype of the weights beside it */
export function configText({ kind, raw, audio, vision }: Gemma3nConfig, dtype: DType): string {
  const named = {
    architectures: [kind === 'text' ? 'Gemma3nForCausalLM' : 'Gemma3nForConditionalGeneration'],
    model_type: kind === 'text' ? 'gemma3n_text' : 'gemma3n',
    ...raw,
    dtype,
  };
  if (kind === 'text') return jsonText(withDType(named, dtype));
  const nested = {
    text_config: { model_type: 'gemma3n_text', ...(raw['text_config'] as JsonObject | undefined) },
    ...(vision && { vision_config: { model_type: 'gemma3n_vision', ...withBlockDictionaries(vision) } }),
    ...(audio && { audio_config: { model_type: 'gemma3n_audio', ...audio } }),
  };
  return jsonText(withDType({ ...named, ...nested }, dtype));
}

/** The text of generation_config.json for a model that came without one. */
export function generationText({ text }: Gemma3nConfig): string {
  const { bosTokenId, eosTokenIds, padTokenId } = text;
  return jsonText({
    _from_model_config: true,
    ...(bosTokenId !== undefined && { bos_token_id: bosTokenId }),
    ...(eosTokenIds.length > 0 && { eos_token_id: eosTokenIds.length === 1 ? eosTokenIds[0] : eosTokenIds }),
    ...(padTokenId !== undefined && { pad_token_id: padTokenId }),
  });
}

/** States the dtype wherever it was stated, under the key of today. */
function withDType(config: JsonObject, dtype: DType): JsonObject {
  return Object.fromEntries(
    Object.entries(config)
      .filter(([key]) => key !== 'torch_dtype')
      .map(([key, value]) => {
        if (key === 'dtype') return [key, value === null ? null : dtype];
        return [
          key,
          /^(text|vision|audio)_config$/.test(key) ? withDType(value as JsonObject, dtype) : value,
        ];
      }),
  );
}

function jsonText(value: JsonObject): string {
  const text = JSON.stringify(markFloats(value, ''), undefined, 2);
  return `${text.replace(/"\\u0000([^"]*)"/g, '$1')}\n`;
}

function markFloats(value: unknown, key: string): unknown {
  if (Array.isArray(value)) return value.map((element) => markFloats(element, key));
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, markFloats(inner, name)]));
  }
  if (typeof value !== 'number' || !floatKeys.has(key)) return value;
  const text = String(value);
  return floatMark + (/[.e]/.test(text) ? text : `${text}.0`);
}
