import { describe, expect, it } from 'vitest';
import { decodeAudio } from '../../src/audio/index.js';
import { bytesOf, clipBytes, concat, distance, recorded, throughFfmpeg, wav } from './fixtures.js';

const inProcess = Object.entries(recorded.clips).filter(([name]) => !throughFfmpeg.has(name));
/** Lossless formats are exact; libopus adds up differently on every processor. */
const bound = (name: string): number =>
  name.endsWith('.opus') ? 2e-5 : /\.(mp3|mp2|ogg|ogv)$/.test(name) ? 3e-6 : 1e-6;

describe('decoding', () => {
  it.each(inProcess)('%s holds what libsndfile or ffmpeg finds in it', async (name, expected) => {
    const { data, sampleRateHz, cutFromSeconds } = await decodeAudio(clipBytes(name), name);
    expect(sampleRateHz).toBe(16_000);
    expect(cutFromSeconds).toBeUndefined();
    expect(data.length).toBe(Math.ceil((expected.numSourceSamples * 16_000) / expected.sourceRateHz));
    expect(distance(name, data)).toBeLessThan(bound(name));
  });

  it('goes by the bytes, and takes views and Buffers of larger memory', async () => {
    const name = '8bit-8k.flac';
    const padded = Buffer.concat([Buffer.alloc(7), clipBytes(name), Buffer.alloc(9)]);
    const { data } = await decodeAudio(padded.subarray(7, -9), 'row 3: speech.mp3');
    expect(distance(name, data)).toBeLessThan(1e-6);
    expect(padded.length).toBe(clipBytes(name).length + 16);
  });

  it('takes the mean of eight channels', async () => {
    const frames = Int16Array.from({ length: 800 }, (_, i) => (i % 8) * 1_000);
    const { data } = await decodeAudio(wav(bytesOf(frames), { numChannels: 8 }));
    expect(data.length).toBe(100);
    expect([...new Set(data)]).toEqual([3_500 / 32_768]);
  });

  it('gives the rate that is asked for', async () => {
    const { data, sampleRateHz } = await decodeAudio(clipBytes('pcm24-48k.wav'), 'clip', {
      sampleRateHz: 24_000,
    });
    expect([data.length, sampleRateHz]).toEqual([2_400, 24_000]);
  });

  it('plays chained Ogg files as one clip', async () => {
    const one = clipBytes('44k-stereo.ogg');
    const single = await decodeAudio(one);
    const double = await decodeAudio(concat(one, one));
    expect(Math.abs(double.data.length - 2 * single.data.length)).toBeLessThanOrEqual(1);
    expect(double.data.slice(0, 3_000)).toEqual(single.data.slice(0, 3_000));
    // 200 ms of 44.1 kHz are 3200 samples: the second begins on one.
    expect(Math.abs(double.data[4_000]! - single.data[800]!)).toBeLessThan(1e-4);
  });

  it('reads WAV chunks of odd length, samples in wide places and sizes that a pipe leaves open', async () => {
    const samples = Int16Array.of(1_000, -2_000, 3_000, -4_000);
    const expected = Float32Array.from(samples, (value) => value / 32_768);
    const plain = wav(bytesOf(samples));
    const list = Buffer.from('LIST\x03\0\0\0abc\0', 'latin1');
    const withList = concat(plain.subarray(0, 36), list, plain.subarray(36), list);
    expect((await decodeAudio(withList)).data).toEqual(expected);

    const wide = Buffer.alloc(16);
    samples.forEach((value, i) => wide.writeInt32LE(value << 16, 4 * i));
    expect((await decodeAudio(wav(wide, { bits: 24, blockAlign: 4 }))).data).toEqual(expected);

    for (const dataBytes of [0, 0xffff_ffff, 0x7fff_ffff]) {
      expect((await decodeAudio(wav(bytesOf(samples), { dataBytes }))).data).toEqual(expected);
    }
  });

  it('keeps floats beyond full scale', async () => {
    const { data } = await decodeAudio(wav(bytesOf(Float32Array.of(1.5, -3)), { code: 3, bits: 32 }));
    expect(data).toEqual(Float32Array.of(1.5, -3));
  });

  it('looks for the first frame of an MP3 behind tags and rubbish', async () => {
    const name = 'no-info-32k.mp3';
    const tag = Buffer.alloc(1_010);
    tag.write('ID3\x04\0\0\0\0\x07\x68', 0, 'latin1');
    const { data } = await decodeAudio(concat(tag, tag, new Uint8Array(99), clipBytes(name)));
    expect(distance(name, data)).toBeLessThan(3e-6);
  });
});

describe('a long clip', () => {
  const saw = (length: number): Int16Array => Int16Array.from({ length }, (_, i) => (i % 100) * 100);

  it('is cut, says so, and is what the beginning of the whole is', async () => {
    const bytes = wav(bytesOf(saw(3 * 44_100)), { sampleRateHz: 44_100 });
    const whole = await decodeAudio(bytes);
    const cut = await decodeAudio(bytes, 'clip', { maxSeconds: 1.25 });
    expect(whole.cutFromSeconds).toBeUndefined();
    expect(cut.cutFromSeconds).toBe(3);
    expect(cut.data).toEqual(whole.data.slice(0, 20_000));
    expect(cut.data.buffer.byteLength).toBe(cut.data.byteLength);
    expect((await decodeAudio(bytes, 'clip', { maxSeconds: 3 })).cutFromSeconds).toBeUndefined();
  });

  it.each([
    ['cbr-44k-stereo-tags.mp3', 0.2],
    ['vbr-16k.mp3', 0.5],
    ['no-info-32k.mp3', 0.252],
    ['24bit-96k.flac', 0.05],
    ['44k-stereo.ogg', 0.2],
    ['48k-stereo.opus', 0.3],
    ['flac-in-ogg.oga', 0.2],
  ])('%s says its whole length when it is cut', async (name, seconds) => {
    const whole = await decodeAudio(clipBytes(name));
    const cut = await decodeAudio(clipBytes(name), name, { maxSeconds: 0.02 });
    expect(cut.data).toEqual(whole.data.slice(0, 320));
    expect(cut.cutFromSeconds).toBeCloseTo(seconds, 3);
  });

  it('of ten hours costs no more than its beginning: WAV', async () => {
    const hours = new Uint8Array(44 + 10 * 3_600 * 32_000);
    hours.set(wav(new Uint8Array(0), { dataBytes: hours.length - 44 }));
    await expectCheap(hours, 36_000);
  });

  it('of ten hours costs no more than its beginning: MP3', async () => {
    const frame = Buffer.alloc(72);
    frame.writeUInt32BE(0xffe3_18c4); // MPEG 2.5, layer 3, 8 kbit/s, 8 kHz, mono
    const hours = new Uint8Array(72 * Math.ceil(36_000 / 0.072)).map((_, i) => frame[i % 72]!);
    await expectCheap(hours, 36_000);
  });

  async function expectCheap(bytes: Uint8Array, seconds: number): Promise<void> {
    await decodeAudio(wav(bytesOf(saw(16_000))));
    const before = process.memoryUsage().rss;
    const begun = performance.now();
    const { data, cutFromSeconds } = await decodeAudio(bytes);
    expect(performance.now() - begun).toBeLessThan(5_000);
    expect(process.memoryUsage().rss - before).toBeLessThan(150e6);
    expect(data.length).toBe(480_000);
    expect(cutFromSeconds).toBeCloseTo(seconds, 0);
  }
});
