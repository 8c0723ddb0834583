import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach, describe, expect, it } from 'vitest';
import { AudioError } from '../../src/errors.js';
import { decodeAudio } from '../../src/audio/index.js';
import { findFfmpeg } from '../../src/audio/ffmpeg.js';
import { clipBytes, concat, distance, recorded, throughFfmpeg } from './fixtures.js';

const path = process.env['PATH'];
const ffmpeg = findFfmpeg();
const version = ffmpeg && execFileSync(ffmpeg, ['-version'], { encoding: 'utf8' }).split(' ')[2];
if (!ffmpeg) console.warn('Skipped: other codecs through ffmpeg, since there is no ffmpeg on PATH');

afterEach(() => {
  process.env['PATH'] = path;
});

async function refusal(bytes: Uint8Array): Promise<string> {
  try {
    await decodeAudio(bytes, 'row 3');
  } catch (error) {
    expect(error).toBeInstanceOf(AudioError);
    expect((error as Error).name).toBe('AudioError');
    return (error as Error).message;
  }
  return 'decoded';
}

const leftBehind = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('sluice-audio-'));

describe('without ffmpeg', () => {
  it.each([
    ['aac.m4a', 'AAC in MP4'],
    ['alac.m4a', 'ALAC in MP4'],
    ['video.mp4', 'ALAC in MP4'],
    ['silent.mp4', 'MP4'],
    ['opus.webm', 'Opus in WebM or Matroska'],
    ['flac.mka', 'FLAC in WebM or Matroska'],
    ['aac.aac', 'AAC'],
    ['mulaw.au', 'AU'],
    ['adpcm.wav', 'IMA ADPCM in WAV'],
  ])('%s is refused by its codec', async (name, found) => {
    process.env['PATH'] = '/nowhere';
    expect(await refusal(clipBytes(name))).toBe(
      'row 3: expected WAV, MP3, FLAC, Ogg Vorbis or Opus, or ffmpeg on PATH for other formats, ' +
        `received ${found}, and no ffmpeg; install ffmpeg, convert the clip to FLAC, or drop the row`,
    );
  });

  it('a damaged MP4 is refused too', async () => {
    process.env['PATH'] = '/nowhere';
    const bytes = clipBytes('alac.m4a');
    for (let at = 8; at < bytes.length; at += 97) {
      const spoilt = bytes.slice();
      spoilt.fill(0xff, at, at + 6);
      expect(await refusal(spoilt)).toContain('MP4, and no ffmpeg');
    }
  });
});

describe.skipIf(!ffmpeg)(`with ffmpeg ${version ?? '(not installed)'}`, () => {
  it.each([...throughFfmpeg])('%s holds what ffmpeg finds in it', async (name) => {
    const { data, cutFromSeconds } = await decodeAudio(clipBytes(name), name);
    const { numSourceSamples, sourceRateHz } = recorded.clips[name]!;
    expect(cutFromSeconds).toBeUndefined();
    expect(Math.abs(data.length - (numSourceSamples * 16_000) / sourceRateHz)).toBeLessThan(2);
    // Decoders of lossy codecs change a little from version to version.
    expect(distance(name, data)).toBeLessThan(/aac|opus|adpcm/.test(name) ? 1e-3 : 1e-6);
    expect(leftBehind()).toEqual([]);
  });

  it('a cut clip says its whole length', async () => {
    const { data, cutFromSeconds } = await decodeAudio(clipBytes('flac.mka'), 'clip', { maxSeconds: 0.05 });
    expect(data.length).toBe(800);
    expect(cutFromSeconds).toBeCloseTo(0.1, 2);
  });

  it('a film without sound is refused', async () => {
    expect(await refusal(clipBytes('silent.mp4'))).toBe(
      'row 3: expected sound that ffmpeg decodes without a fault, received MP4: no stream of sound; the file is ' +
        'truncated, corrupt or silent film: fetch it again, or drop the row',
    );
  });

  it('truncated and damaged files are refused', async () => {
    const bytes = clipBytes('alac.m4a');
    const half = await refusal(bytes.subarray(0, bytes.length / 2));
    expect(half).toContain('row 3: expected sound that ffmpeg decodes without a fault, received');
    expect(half).not.toContain(tmpdir());
    expect(half).not.toContain('0x');
    const rubbish = concat(bytes.subarray(0, 40), new Uint8Array(2_000).fill(0x5a));
    expect(await refusal(rubbish)).toContain(
      'expected sound that ffmpeg decodes without a fault, received MP4',
    );
    expect(leftBehind()).toEqual([]);
  });

  it('many clips at once take turns, and those that wait can be aborted', async () => {
    const controller = new AbortController();
    const clips = Array.from({ length: 9 }, () => decodeAudio(clipBytes('flac.mka')));
    const waiting = decodeAudio(clipBytes('flac.mka'), 'clip', { signal: controller.signal });
    setTimeout(() => controller.abort(new Error('enough')), 1);
    await expect(waiting).rejects.toThrow('enough');
    for (const { data } of await Promise.all(clips)) expect(data.length).toBe(1_600);
  });

  it('is killed when the clip is aborted', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const open = decodeAudio(clipBytes('video.mp4'), 'clip', { signal: controller.signal });
    setTimeout(() => controller.abort(reason), 5);
    await expect(open).rejects.toBe(reason);
    expect(leftBehind()).toEqual([]);
  });
});
