import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { decodeConfig, sharesKv } from '../../src/models/gemma3n/config.js';

const fixture = (name: string): unknown =>
  JSON.parse(
    readFileSync(new URL(`../../fixtures/reference/text-${name}/config.json`, import.meta.url), 'utf8'),
  );

const small = { model_type: 'gemma3n_text', num_hidden_layers: 3, num_kv_shared_layers: 0 };

describe('decodeConfig', () => {
  it('takes the reference defaults where the file is silent', () => {
    const { kind, text } = decodeConfig({});
    expect(kind).toBe('text');
    expect(text).toMatchObject({
      hiddenSize: 2048,
      numHiddenLayers: 35,
      headDim: 256,
      finalLogitSoftcapping: 30,
    });
    expect(text.layerTypes.filter((type) => type === 'full_attention')).toHaveLength(7);
    expect(text.intermediateSize).toEqual(new Array(35).fill(16384));
    expect(text.activationSparsityPattern.slice(8, 12)).toEqual([0.95, 0.95, 0, 0]);
    expect(text.rope).toEqual({
      sliding_attention: { theta: 10_000, factor: 1 },
      full_attention: { theta: 1_000_000, factor: 1 },
    });
    expect(text.kvSources[34]).toBe(19);
    expect(text.kvSources[33]).toBe(18);
  });

  it('reads a bare text configuration as transformers writes it', () => {
    const { kind, text, raw } = decodeConfig(fixture('sharing'));
    expect(kind).toBe('text');
    expect(text.kvSources).toEqual([0, 1, 2, 1, 1, 2]);
    expect(text.layerTypes.map((_, i) => sharesKv(text, i))).toEqual([false, false, false, true, true, true]);
    expect(text.rope.sliding_attention.theta).toBe(100);
    expect(text.eosTokenIds).toEqual([]);
    expect(raw['transformers_version']).toBe('5.23.0');
  });

  it('finds the source of a sharing layer that is not the last unshared layer', () => {
    expect(decodeConfig(fixture('clipped')).text.kvSources).toEqual([0, 1, 2, 0, 2]);
  });

  it('reads a nested configuration with the older rotary keys, and carries the other towers as they are', () => {
    const config = decodeConfig({
      architectures: ['Gemma3nForConditionalGeneration'],
      model_type: 'gemma3n',
      eos_token_id: [1, 106],
      text_config: {
        ...small,
        rope_theta: 5e5,
        rope_local_base_freq: 123,
        rope_scaling: null,
        query_pre_attn_scalar: 8,
      },
      vision_config: { architecture: 'mobilenetv5_300m_enc' },
      audio_config: { hidden_size: 32 },
      image_token_id: 7,
    });
    expect(config).toMatchObject({ kind: 'multimodal', imageTokenId: 7, audio: { hidden_size: 32 } });
    expect(config.text.eosTokenIds).toEqual([1, 106]);
    expect(config.text.rope.full_attention.theta).toBe(5e5);
    expect(config.text.rope.sliding_attention.theta).toBe(123);
  });

  it('applies linear rope_scaling to the full layers alone', () => {
    const { rope } = decodeConfig({ ...small, rope_scaling: { rope_type: 'linear', factor: 8 } }).text;
    expect(rope.full_attention.factor).toBe(8);
    expect(rope.sliding_attention.factor).toBe(1);
  });
});

describe('decodeConfig refuses', () => {
  const message = (json: unknown): string => {
    try {
      decodeConfig(json);
    } catch (error) {
      expect(error).toMatchObject({ code: 'CONFIG' });
      return (error as Error).message;
    }
    throw new Error('decoded');
  };

  it('lists of another length than the layers, all of them at once', () => {
    const text = message({
      ...small,
      layer_types: ['full_attention'],
      intermediate_size: [1, 2],
      activation_sparsity_pattern: [0, 0, 0, 0],
    });
    expect(text.split('\n')).toEqual([
      'config.json: layer_types: expected 3 entries, one a layer (num_hidden_layers), received 1; give one entry a layer',
      'config.json: intermediate_size: expected 3 entries, one a layer (num_hidden_layers), received 2; give one entry a layer',
      'config.json: activation_sparsity_pattern: expected 3 entries, one a layer (num_hidden_layers), received 4; give one entry a layer',
    ]);
  });

  it('key/value heads that do not divide the heads', () => {
    expect(message({ ...small, num_attention_heads: 8, num_key_value_heads: 3 })).toContain(
      'num_key_value_heads: expected a divisor of num_attention_heads (8), received 3',
    );
  });

  it('more sharing layers than layers', () => {
    expect(message({ ...small, num_kv_shared_layers: 3 })).toContain(
      'num_kv_shared_layers: expected less than num_hidden_layers (3), received 3',
    );
  });

  it('a sharing layer whose kind has no unshared layer', () => {
    const layer_types = ['sliding_attention', 'sliding_attention', 'full_attention'];
    expect(message({ ...small, num_kv_shared_layers: 1, layer_types })).toContain(
      'expected an unshared full_attention layer among the first 2 layers, received layer 2 with nothing to share',
    );
  });

  it('an AltUp index out of range, a padding id outside the tables, an odd head size, a negative cap', () => {
    expect(message({ ...small, altup_active_idx: 4 })).toContain(
      'altup_active_idx: expected less than altup_num_inputs (4)',
    );
    expect(message({ ...small, pad_token_id: 9, vocab_size: 9 })).toContain(
      'pad_token_id: expected an id of both',
    );
    expect(message({ ...small, head_dim: 5 })).toMatch(/config.json: head_dim: .*received 5/);
    expect(message({ ...small, final_logit_softcapping: -1 })).toMatch(
      /final_logit_softcapping: .*received -1/,
    );
  });

  it('a rotary embedding that it does not know, an unknown layer type, another model', () => {
    expect(message({ ...small, rope_scaling: { rope_type: 'yarn' } })).toMatch(
      /rope_scaling.rope_type: .*"yarn"/,
    );
    expect(message({ ...small, layer_types: ['a', 'b', 'c'] })).toMatch(/layer_types.0: .*"a"/);
    expect(message({ model_type: 'llama' })).toMatch(/model_type: .*"llama"/);
    expect(message([1])).toContain('config.json: (root)');
  });
});
