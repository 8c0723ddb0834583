import { describe, expect, it } from 'vitest';
import { decodeConfig } from '../../src/models/gemma3n/config.js';
import { checkVocabularies } from '../../src/models/gemma3n/vocabularies.js';

/** The faults of a config.json whose three vocabularies begin and end so. */
function faultsOf(
  vision: readonly [offset: number, size: number],
  audio: readonly [offset: number, size: number],
  more: Readonly<Record<string, unknown>> = {},
): string[] {
  const config = decodeConfig({
    model_type: 'gemma3n',
    text_config: { vocab_size: 100 },
    ...{
      image_token_id: 81,
      boi_token_id: 5,
      eoi_token_id: 80,
      audio_token_id: 91,
      boa_token_id: 6,
      eoa_token_id: 90,
    },
    ...more,
  });
  try {
    const range = ([vocabOffset, vocabSize]: readonly [number, number]) => ({ vocabOffset, vocabSize });
    checkVocabularies(config, range(vision), range(audio));
    return [];
  } catch (error) {
    return (error as Error).message.split('\n');
  }
}

describe('checkVocabularies', () => {
  it('takes ranges that follow each other within the table', () => {
    expect(faultsOf([80, 10], [90, 10])).toEqual([]);
  });

  it('refuses ranges that overlap, or that come in the other order', () => {
    expect(faultsOf([80, 11], [90, 10])).toEqual([
      'config.json: audio_config.vocab_offset: expected 91 or more, where the words of vision_config end, received 90; ' +
        'the ids of images come first, then those of sound',
    ]);
    expect(faultsOf([90, 10], [80, 10])).toHaveLength(1);
  });

  it('refuses a range beyond the table, and placeholders beyond it or of one id', () => {
    expect(faultsOf([80, 10], [90, 11])).toEqual([
      'config.json: audio_config: expected at most text_config.vocab_size (100) for vocab_offset + vocab_size, ' +
        'received 101; move vocab_offset, or enlarge the vocabulary',
    ]);
    expect(faultsOf([80, 10], [90, 10], { image_token_id: 100 })).toEqual([
      'config.json: image_token_id: expected an id below text_config.vocab_size (100), received 100; ' +
        'use the config.json of one model',
    ]);
    expect(faultsOf([80, 10], [90, 10], { audio_token_id: 81 })).toEqual([
      'config.json: audio_token_id: expected another id than image_token_id, received 81; placeholders must differ',
    ]);
  });
});
