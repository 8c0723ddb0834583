import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { audioFeatures, audioFeaturesInThread, featureSettings } from '../../src/audio/index.js';
import { FeatureThread } from '../../src/audio/feature-thread.js';
import { AudioError } from '../../src/errors.js';
import { wave } from '../reference/waves.js';

const settings = featureSettings({}, 'defaults');
const clip = (samples: number, sampleRateHz = 16_000) => ({
  data: wave({ kind: 'voice', samples, rate: sampleRateHz }),
  sampleRateHz,
});

describe('audioFeaturesInThread', () => {
  it('gives what audioFeatures gives, several calls at once, and leaves the clips as they are', async () => {
    const calls = [[clip(4000)], [clip(9000), clip(700)], [clip(8000, 22_050)]];
    const before = calls.map((clips) => clips.map(({ data }) => data.slice()));
    const results = await Promise.all(calls.map((clips) => audioFeaturesInThread(clips, settings)));
    expect(results).toEqual(calls.map((clips) => audioFeatures(clips, settings)));
    expect(calls.map((clips) => clips.map(({ data }) => data))).toEqual(before);
  });

  it('sends no more of a long clip, or of what lies around a view, than is heard', async () => {
    const long = { data: new Float32Array(10_000_000).fill(0.25), sampleRateHz: 16_000 };
    const { features, notices } = await audioFeaturesInThread([long], settings);
    expect(features.shape).toEqual([1, 2997, 128]);
    expect(notices).toEqual(['clip 0 lasts 625.0 s: only its first 30.0 s are heard']);
    const view = { data: long.data.subarray(1000, 9000), sampleRateHz: 16_000 };
    expect(await audioFeaturesInThread([view], settings)).toEqual(audioFeatures([view], settings));
    expect(long.data).toHaveLength(10_000_000);
  });

  it('fails as audioFeatures fails, and goes on', async () => {
    const bad = { data: Float32Array.of(0, NaN), sampleRateHz: 16_000 };
    const failed = audioFeaturesInThread([clip(4000), bad], settings);
    const fine = audioFeaturesInThread([clip(4000)], settings);
    await expect(failed).rejects.toThrow(AudioError);
    await expect(failed).rejects.toThrow(
      'clip 1: expected samples that are finite numbers, received NaN at 0.000 s',
    );
    expect((await fine).features.shape).toEqual([1, 23, 128]);
    const empty = { data: new Float32Array(0), sampleRateHz: 16_000 };
    await expect(audioFeaturesInThread([empty], settings)).rejects.toThrow(
      'clip 0: expected at least one sample',
    );
  });

  it('loses the clips that its thread died over, and no others: another thread takes them', async () => {
    const thread = new FeatureThread(() => new URL('./mischief-features.worker.mjs', import.meta.url));
    const fine = (value: number) => [{ data: new Float32Array(8000).fill(value), sampleRateHz: 16_000 }];
    const deadly = { data: new Float32Array(8000).fill(-0.5), sampleRateHz: 16_000 };
    const settled = await Promise.allSettled([
      thread.features(fine(0.25), settings),
      thread.features([deadly], settings),
      thread.features(fine(0.5), settings),
      thread.features([deadly], settings),
      thread.features(fine(0.75), settings),
    ]);
    expect(
      settled.map((each) => (each.status === 'fulfilled' ? each.value : (each.reason as Error).message)),
    ).toEqual([
      [0.25, 8000],
      expect.stringContaining(
        'audio features: expected their thread to run until the end, received it ended with code 3',
      ),
      [0.5, 8000],
      expect.stringContaining('it ended with code 3'),
      [0.75, 8000],
    ]);
  });

  it('leaves this thread free', async () => {
    const clips = Array.from({ length: 8 }, () => clip(80_000));
    await audioFeaturesInThread([clip(4000)], settings);
    let turns = 0;
    let isDone = false;
    const turn = (): void => {
      turns++;
      if (!isDone) setImmediate(turn);
    };
    turn();
    await Promise.all(clips.map((one) => audioFeaturesInThread([one], settings)));
    isDone = true;
    // Eight clips' work at once would leave a turn between them at most.
    expect(turns).toBeGreaterThan(50);
  });

  it('starts from a script that is given on the command line, and does not keep it alive', () => {
    const module = (name: string): string =>
      JSON.stringify(new URL(`../../dist/audio/${name}`, import.meta.url).href);
    const script = `
      import { audioFeaturesInThread } from ${module('feature-thread.js')};
      import { featureSettings } from ${module('feature-settings.js')};
      const clip = { data: new Float32Array(8000), sampleRateHz: 16000 };
      const { features } = await audioFeaturesInThread([clip], featureSettings({}, 'defaults'));
      console.log(features.shape.join(), process.uptime());
    `;
    const begun = performance.now();
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    const [shape, uptime] = stdout.trim().split(' ');
    expect(shape).toBe('1,48,128');
    // An idle thread lives for 5 s.
    expect((performance.now() - begun) / 1e3 - Number(uptime)).toBeLessThan(3);
  });
});
