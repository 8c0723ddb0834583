import { describe, expect, it } from 'vitest';
import { AudioError } from '../../src/errors.js';
import { decodeAudio } from '../../src/audio/index.js';
import { bytesOf, clipBytes, concat, randomNumbers, throughFfmpeg, recorded, wav } from './fixtures.js';

const where = 'train.parquet row 3, audio 0';
const textOf = (text: string): Uint8Array => new TextEncoder().encode(text);

async function refusal(bytes: Uint8Array, maxSeconds = 30): Promise<string> {
  try {
    await decodeAudio(bytes, where, { maxSeconds });
  } catch (error) {
    expect(error).toBeInstanceOf(AudioError);
    expect(error).toMatchObject({ name: 'AudioError', code: 'AUDIO' });
    return (error as Error).message.replace(`${where}: `, '');
  }
  return 'decoded';
}

const formats = 'expected WAV, MP3, FLAC, Ogg Vorbis or Opus, or what ffmpeg decodes, received';
const noSound = 'pass the bytes of a file of sound, or drop the row';
const dropIt = 'fetch it again, or drop the row';

describe('what is no sound', () => {
  it.each([
    ['no bytes', new Uint8Array(0), 'no bytes'],
    [
      'a text file named .mp3',
      textOf('This is not the sound of anything.\n'),
      'text ("This is not the sound of...")',
    ],
    ['an HTML page', textOf('<!DOCTYPE html><html><body>404</body></html>'), 'an HTML page'],
    ['a playlist', textOf('#EXTM3U\nfile:///etc/passwd\n'), 'text ("#EXTM3U file:///etc/pass...")'],
    [
      'a list of files to join',
      textOf("ffconcat version 1.0\nfile '/etc/passwd'\n"),
      'text ("ffconcat version 1.0 fil...")',
    ],
    ['text that begins as an MP4 does', textOf("I'm free today."), 'text ("I\'m free today.")'],
    ['text that begins as a FLAC does', textOf('fLaC is lossless.'), 'text ("fLaC is lossless.")'],
    [
      'text that begins as MACs do',
      textOf('MAC addresses are not sound'),
      'text ("MAC addresses are not so...")',
    ],
    ['a JPEG', Uint8Array.of(0xff, 0xd8, 0xff, 0xe0, 0, 16), 'a JPEG image'],
    ['a Git LFS pointer', textOf('version https://git-lfs.github.com/spec/v1\n'), 'a Git LFS pointer'],
    ['zeros', new Uint8Array(64), '64 bytes of no known format (they begin with 00 00 00 00 00 00 00 00)'],
    ['a tag alone', concat(textOf('ID3\x03\0\0\0\0\0\x04abcd')), 'an ID3 tag with no sound behind it'],
  ])('%s is refused by what it is', async (_name, bytes, found) => {
    expect(await refusal(bytes)).toBe(`${formats} ${found}; ${noSound}`);
  });

  it('something else than bytes is named', async () => {
    expect(await refusal('clip.wav' as unknown as Uint8Array)).toBe(
      "expected a clip's bytes as Uint8Array, received string; pass the encoded file, such as row.audio.bytes",
    );
  });

  it.each([0, -1, NaN, Infinity])('maxSeconds of %s is refused', async (maxSeconds) => {
    expect(await refusal(clipBytes('8bit-8k.flac'), maxSeconds)).toContain('expected maxSeconds above 0');
  });
});

describe('samples that are none', () => {
  it.each([
    ['WAV with an empty data chunk', wav(new Uint8Array(0))],
    [
      'WAV with an empty data chunk before another',
      concat(wav(new Uint8Array(0)), textOf('LIST\x04\0\0\0abcd')),
    ],
    ['WAV without a data chunk', wav(new Uint8Array(0)).subarray(0, 36)],
    ['FLAC that ends with its header', clipBytes('streamed.flac').subarray(0, 42)],
  ])('%s', async (_name, bytes) => {
    expect(await refusal(bytes)).toBe(
      `expected at least one sample, received none; the clip is empty: ${dropIt}`,
    );
  });

  it.each([NaN, Infinity, -Infinity])('%s is named with its place', async (value) => {
    const samples = new Float32Array(16_000);
    samples[8_000] = value;
    const expected = `expected samples that are finite numbers, received ${value} at 0.500 s; repair or drop the row`;
    expect(await refusal(wav(bytesOf(samples), { code: 3, bits: 32 }))).toBe(expected);
  });

  it('64-bit samples too large for 32 bits are not finite either', async () => {
    const bytes = new Uint8Array(Float64Array.of(0, 1e300).buffer);
    expect(await refusal(wav(bytes, { code: 3, bits: 64 }))).toContain('received Infinity at 0.000 s');
  });
});

describe('headers that lie', () => {
  const sound = new Uint8Array(3_200);

  it.each([
    [{ numChannels: 0 }, 'expected 1 to 64 channels in its WAV header, received 0'],
    [{ numChannels: 65_535 }, 'expected 1 to 64 channels in its WAV header, received 65535'],
    [{ sampleRateHz: 0 }, 'expected 1000 to 768000 samples a second in its WAV header, received 0'],
    [
      { sampleRateHz: 2 ** 31 },
      'expected 1000 to 768000 samples a second in its WAV header, received 2147483648',
    ],
  ])('%o', async (fields, message) => {
    const expected = `${message}; the header is damaged: fetch the file again, or drop the row`;
    expect(await refusal(wav(sound, fields))).toBe(expected);
  });

  it('billions of samples in a WAV of a few are missing, and allocated nowhere', async () => {
    expect(await refusal(wav(sound, { dataBytes: 2e9 }))).toBe(
      'expected 1000000000 samples (62500.00 s) as its WAV header says, received 1600 samples (0.10 s), ' +
        `999998400 samples (62499.90 s) missing; the file is truncated or corrupt: ${dropIt}`,
    );
  });

  it('billions of samples in a FLAC of a few are missing', async () => {
    const bytes = clipBytes('8bit-8k.flac').slice();
    bytes.set([0xff, 0xff, 0xff, 0xff], 22);
    expect(await refusal(bytes)).toContain(
      '4294967295 samples (536870.91 s) as its FLAC header says, received 800 samples',
    );
  });

  it('billions of samples in RF64', async () => {
    const bytes = clipBytes('pcm16-rf64.wav').slice();
    new DataView(bytes.buffer).setBigUint64(28, 2n ** 62n, true);
    expect(await refusal(bytes)).toContain('as its WAV header says, received 1600 samples');
  });

  it('a WAV without a format, and one with half of it', async () => {
    const bytes = wav(sound);
    const broken = (reason: string): string =>
      `expected a whole, intact WAV file, received bytes that do not decode (${reason}); the file is truncated or ` +
      `corrupt: ${dropIt}`;
    expect(await refusal(concat(bytes.subarray(0, 12), bytes.subarray(36)))).toBe(
      broken("no 'fmt ' chunk before the samples"),
    );
    expect(await refusal(bytes.subarray(0, 20))).toBe(broken("a 'fmt ' chunk of 0 bytes"));
    expect(await refusal(bytes.subarray(0, 12))).toBe(broken("no 'fmt ' chunk"));
  });
});

describe('files that are cut off', () => {
  it('WAV, AIFF and FLAC say how much is missing', async () => {
    const whole = clipBytes('pcm16-44k-stereo.wav');
    expect(await refusal(whole.subarray(0, 44 + 4 * 2_205))).toBe(
      'expected 4410 samples (0.10 s) as its WAV header says, received 2205 samples (0.05 s), 2205 samples (0.05 s) ' +
        `missing; the file is truncated or corrupt: ${dropIt}`,
    );
    const aiff = clipBytes('pcm16-44k-stereo.aiff');
    expect(await refusal(aiff.subarray(0, aiff.length - 400))).toContain('100 samples (0.00 s) missing');
    const flac = clipBytes('16bit-44k-stereo.flac');
    expect(await refusal(flac.subarray(0, flac.length - 1))).toContain(
      'expected 4410 samples (0.10 s) as its FLAC header',
    );
  });

  it('Ogg that ends within a page, or lacks one, is refused', async () => {
    const ogg = clipBytes('48k-stereo.opus');
    const broken = (reason: string): string =>
      `expected a whole, intact Ogg file, received bytes that do not decode (${reason}); the file is truncated or ` +
      `corrupt: ${dropIt}`;
    const end = ogg.length - 100;
    expect(await refusal(ogg.subarray(0, end))).toBe(broken(`it ends within a page, at byte ${end}`));
    const flac = clipBytes('flac-in-ogg.oga');
    const pages = [...flac.keys()].filter(
      (at) => Buffer.from(flac.subarray(at, at + 4)).toString() === 'OggS',
    );
    const [first, second, third] = [
      flac.subarray(0, pages[1]),
      flac.subarray(pages[1], pages[2]),
      flac.subarray(pages[2]),
    ];
    expect(pages.length).toBeGreaterThanOrEqual(3);
    expect(await refusal(concat(first, third))).toBe(broken('page 2 follows page 0'));
    const spoilt = concat(first, second, third);
    spoilt[pages[2]! + 100]! ^= 1;
    expect(await refusal(spoilt)).toBe(broken(`the checksum of the page at byte ${pages[2]} is wrong`));
  });

  it('what is wanted may end before the fault', async () => {
    const half = clipBytes('pcm16-44k-stereo.wav').subarray(0, 44 + 4 * 2_205);
    const { data, cutFromSeconds } = await decodeAudio(half, where, { maxSeconds: 0.02 });
    expect([data.length, cutFromSeconds]).toEqual([320, 0.1]);
  });

  it('an MP3 plays what is there', async () => {
    const bytes = clipBytes('vbr-16k.mp3');
    const { data } = await decodeAudio(bytes.subarray(0, bytes.length / 2));
    expect(data.length).toBeGreaterThan(1_000);
    expect(data.length).toBeLessThan(8_000);
  });
});

describe('damage', () => {
  it.each([
    'cbr-44k-stereo-tags.mp3',
    '44k-stereo.ogg',
    '48k-stereo.opus',
    '16bit-44k-stereo.flac',
    'flac-in-ogg.oga',
  ])('rubbish behind the header of %s is an error', async (name) => {
    const random = randomNumbers(3);
    const bytes = clipBytes(name).map((byte, i) => (i < 200 ? byte : Math.floor(256 * random())));
    expect(await refusal(bytes)).toMatch(/^expected .*(drop the row)$/);
  });

  const names = Object.keys(recorded.clips).filter((name) => !throughFfmpeg.has(name));

  it('of any kind ends in samples or in an AudioError: 400 mutated files', async () => {
    const random = randomNumbers(5);
    const upTo = (end: number): number => Math.floor(random() * end);
    const mutate = (bytes: Uint8Array): Uint8Array => {
      const out = bytes.slice(0, random() < 0.25 ? upTo(bytes.length) : bytes.length);
      const spots = random() < 0.5 ? Math.min(out.length, 120) : out.length;
      for (let count = upTo(20); count > 0 && spots > 0; count--) out[upTo(spots)] = upTo(256);
      if (random() < 0.25) for (let at = upTo(out.length); at < out.length; at++) out[at] = upTo(256);
      return out;
    };
    const ends = await Promise.all(
      Array.from({ length: 400 }, async (_, i) => {
        const name = names[i % names.length]!;
        try {
          const { data } = await decodeAudio(mutate(clipBytes(name)), where, { maxSeconds: 5 });
          expect(data.length).toBeLessThanOrEqual(80_000);
          expect(data.every((sample) => Number.isFinite(sample))).toBe(true);
          return 'decoded';
        } catch (error) {
          expect(error, name).toBeInstanceOf(AudioError);
          expect((error as Error).message).toMatch(
            /^train.parquet row 3, audio 0: expected .+, received .+; .+$/s,
          );
          return 'refused';
        }
      }),
    );
    expect(new Set(ends)).toEqual(new Set(['decoded', 'refused']));
  });
});
