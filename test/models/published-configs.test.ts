// What is known of the published models without their files is what their files say.

import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { inspectCheckpoint, publishedConfig } from '../../src/models/gemma3n/index.js';

it.each(['E2B', 'E4B'])('the built-in configuration of %s is the published one', async (size) => {
  const path = fileURLToPath(new URL(`../../fixtures/configs/gemma-3n-${size}.json`, import.meta.url));
  const whole = await inspectCheckpoint(path, { images: 2, clips: 1 });
  for (const name of [`google/gemma-3n-${size}-it`, `google/gemma-3n-${size}`]) {
    const { checkpoint: _name, ...built } = await inspectCheckpoint(publishedConfig(name)!, {
      images: 2,
      clips: 1,
    });
    expect({ checkpoint: path, ...built }).toEqual(whole);
  }
});

it('knows no other model', () => {
  expect(publishedConfig('google/gemma-3n-E3B-it')).toBeUndefined();
  expect(publishedConfig('someone/gemma-3n-E2B-it')).toBeUndefined();
});
