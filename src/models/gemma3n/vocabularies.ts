// One range of ids holds three vocabularies: the text's, then the words of images, then those of sound. A config.json in
// which they overlap, or name an id beyond the table, would embed words by the wrong one.

import { ConfigError, describeFault } from '../../errors.js';
import type { Gemma3nConfig } from './config.js';
import type { EmbedderConfig } from './embedder.js';

type Range = Pick<EmbedderConfig, 'vocabOffset' | 'vocabSize'>;

/** @param vision undefined for a model without that tower, as `audio`
 *  @throws {ConfigError} every contradiction, a line each */
export function checkVocabularies(
  config: Gemma3nConfig,
  vision: Range | undefined,
  audio: Range | undefined,
  where = 'config.json',
): void {
  const faults: string[] = [];
  const expect = (holds: boolean, key: string, expected: string, received: number, remedy: string): void => {
    if (holds) return;
    faults.push(describeFault({ where: `${where}: ${key}`, expected, received: String(received), remedy }));
  };
  const { vocabSize } = config.text;
  for (const [key, range] of [['vision_config', vision] as const, ['audio_config', audio] as const]) {
    if (!range) continue;
    const end = range.vocabOffset + range.vocabSize;
    const table = `at most text_config.vocab_size (${vocabSize}) for vocab_offset + vocab_size`;
    expect(end <= vocabSize, key, table, end, 'move vocab_offset, or enlarge the vocabulary');
  }
  if (vision && audio) {
    const end = vision.vocabOffset + vision.vocabSize;
    const after = `${end} or more, where the words of vision_config end`;
    const remedy = 'the ids of images come first, then those of sound';
    expect(audio.vocabOffset >= end, 'audio_config.vocab_offset', after, audio.vocabOffset, remedy);
  }
  const ids: (readonly [string, number])[] = [
    ...(vision
      ? ([
          ['image_token_id', config.imageTokenId],
          ['boi_token_id', config.boiTokenId],
          ['eoi_token_id', config.eoiTokenId],
        ] as const)
      : []),
    ...(audio
      ? ([
          ['audio_token_id', config.audioTokenId],
          ['boa_token_id', config.boaTokenId],
          ['eoa_token_id', config.eoaTokenId],
        ] as const)
      : []),
  ];
  for (const [key, id] of ids) {
    expect(
      id < vocabSize,
      key,
      `an id below text_config.vocab_size (${vocabSize})`,
      id,
      'use the config.json of one model',
    );
  }
  if (vision && audio && config.imageTokenId === config.audioTokenId) {
    expect(
      false,
      'audio_token_id',
      'another id than image_token_id',
      config.audioTokenId,
      'placeholders must differ',
    );
  }
  if (faults.length > 0) throw new ConfigError(faults.join('\n'));
}
