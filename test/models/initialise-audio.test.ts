// Random weights of the audio tower.

import * as fs from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { AudioTower } from '../../src/models/gemma3n/audio.js';
import { decodeAudioConfig } from '../../src/models/gemma3n/audio-config.js';
import { decodeConfig } from '../../src/models/gemma3n/config.js';
import { fromConfig } from '../../src/models/gemma3n/index.js';
import { initialiseAudio } from '../../src/models/gemma3n/initialise-audio.js';
import {
  type Tensor,
  manualSeed,
  noGrad,
  randn,
  scope,
  setNumThreads,
  withDefaults,
} from '../../src/tensor/index.js';
import { root } from './reference.js';

beforeAll(() => setNumThreads(1));

const json = JSON.parse(fs.readFileSync(`${root}multimodal-mixed/config.json`, 'utf8')) as Record<
  string,
  unknown
>;
const sums = (model: { namedParameters(): Iterable<[string, Tensor]> }, part: string) =>
  scope(() =>
    Array.from(model.namedParameters())
      .filter(([name]) => name.startsWith(part))
      .map(([name, parameter]) => [name, parameter.square().sum().item()] as const),
  );

describe('initialiseAudio', () => {
  test('fills every parameter of the tower, the same for the same seed', () => {
    const draw = (seed: number) => {
      const tower = new AudioTower(decodeAudioConfig(json['audio_config']));
      noGrad(() => {
        for (const [, parameter] of tower.namedParameters()) parameter.fill_(NaN); // so that one left out shows
      });
      manualSeed(seed);
      initialiseAudio(tower);
      return sums(tower, '');
    };
    expect(draw(1).filter(([, sum]) => !Number.isFinite(sum))).toEqual([]);
    expect(draw(1)).toEqual(draw(1));
    expect(draw(2)).not.toEqual(draw(1));
  });

  test('leaves the draws of text and images as they are without it', () => {
    const whole = fromConfig(decodeConfig(json), { seed: 5 });
    const other = {
      ...json,
      audio_config: { ...(json['audio_config'] as object), conf_num_hidden_layers: 3 },
    };
    for (const part of ['model.language_model', 'model.vision_tower', 'model.embed_vision']) {
      expect(sums(fromConfig(decodeConfig(other), { seed: 5 }), part)).toEqual(sums(whole, part));
    }
  });

  test.each(['float32', 'bfloat16'] as const)(
    'keeps signal and gradients alive through twelve layers in %s',
    (dtype) => {
      scope(() => {
        const small = { hidden_size: 32, conf_num_attention_heads: 4, sscp_conv_channel_size: [16, 8] };
        const tower = withDefaults({ dtype }, () => new AudioTower(decodeAudioConfig(small)));
        manualSeed(3);
        initialiseAudio(tower);
        // Like log-mel: far from zero, and smooth.
        const mel = randn([2, 160, 32, 1]).expand([2, 160, 32, 4]).reshape([2, 160, 128]).mul(2).sub(6);
        const { features } = tower.forward(mel);
        const frames = features.to('float32').flatten(0, 1);
        const varying = frames.sub(frames.mean(0)).square().mean().item() / frames.square().mean().item();
        expect(varying).toBeGreaterThan(0.1);

        features.to('float32').mul(randn(features.shape)).sum().backward();
        const norms = Array.from(tower.namedParameters(), ([name, { grad }]) => {
          const wide = grad!.to('float32');
          return [name, wide.square().mean().sqrt().item()] as const;
        });
        expect(norms.filter(([, norm]) => !(norm > 1e-3 && norm < 1e3))).toEqual([]);
        tower.dispose();
      });
    },
  );
});
