// The set of spoken digits as it is committed: what its README promises and the audio job relies on.

import { readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { decodeAudio } from '../../src/audio/index.js';
import { parquet } from '../../src/data/parquet.js';
import { readValues } from './helpers.js';

interface Row {
  readonly audio: { readonly bytes: Uint8Array; readonly path: string };
  readonly text: string;
  readonly voice: string;
  readonly accent: string;
  readonly noise: string;
  readonly snr_db: number | null;
  readonly words_per_minute: number;
  readonly num_digits: number;
}

const DIGITS = 'zero one two three four five six seven eight nine'.split(' ');
const folder = fileURLToPath(new URL('../../fixtures/spoken-digits/', import.meta.url));
const file = (split: 'train' | 'test') => `${folder}${split}.parquet`;

describe('fixtures/spoken-digits', () => {
  let train: Row[] = [];
  let test: Row[] = [];
  const all = () => [...train, ...test];
  const values = <K extends keyof Row>(rows: readonly Row[], key: K) => new Set(rows.map((row) => row[key]));

  beforeAll(async () => {
    train = await readValues(parquet<Row>(file('train')));
    test = await readValues(parquet<Row>(file('test')));
  });

  it('is small', () => {
    const bytes = statSync(file('train')).size + statSync(file('test')).size;
    expect(bytes).toBeLessThanOrEqual(5e6);
    expect([train.length, test.length]).toEqual([2400, 240]);
    expect(readFileSync(`${folder}README.md`, 'utf8')).toContain(
      statSync(file('train')).size.toLocaleString('en'),
    );
    expect(readFileSync(`${folder}README.md`, 'utf8')).toContain(
      statSync(file('test')).size.toLocaleString('en'),
    );
  });

  it('tests on voices, and variants of voices, that training does not have', () => {
    const variants = (rows: readonly Row[]) => new Set(rows.map(({ voice }) => voice.split('+')[1]));
    expect(values(train, 'voice').size).toBe(40);
    expect(values(test, 'voice').size).toBe(6);
    for (const variant of variants(test)) expect(variants(train)).not.toContain(variant);
    expect(values(train, 'accent')).not.toContain('en-gb-x-gbclan');
    expect(values(test, 'accent')).toContain('en-gb-x-gbclan');
  });

  it('has no clip twice', () => {
    expect(new Set(all().map(({ audio }) => Buffer.from(audio.bytes).toString('base64'))).size).toBe(
      all().length,
    );
    expect(new Set(all().map(({ audio }) => audio.path)).size).toBe(all().length);
  });

  it('says one to three digits a clip, all digits about equally often', () => {
    for (const rows of [train, test]) {
      const words = rows.flatMap(({ text }) => text.split(' '));
      for (const digit of DIGITS) {
        const share = words.filter((word) => word === digit).length / words.length;
        expect(share).toBeGreaterThan(0.075);
        expect(share).toBeLessThan(0.125);
      }
      expect(new Set(words).size).toBe(DIGITS.length);
      for (const { text, num_digits } of rows) expect(text.split(' ')).toHaveLength(num_digits);
      expect(values(rows, 'num_digits')).toEqual(new Set([1, 2, 3]));
    }
  });

  it('has noise of three kinds at four strengths, and clips without', () => {
    for (const rows of [train, test]) {
      expect(values(rows, 'noise')).toEqual(new Set(['none', 'white', 'pink', 'hum']));
      expect(values(rows, 'snr_db')).toEqual(new Set([null, 20, 15, 10, 5]));
      expect(rows.every(({ noise, snr_db }) => (noise === 'none') === (snr_db === null))).toBe(true);
      expect(values(rows, 'words_per_minute').size).toBeGreaterThan(50);
    }
  });

  it('decodes to mono of 16 kHz that fits the 16 soft tokens of the tiny base', async () => {
    const some = all().filter((_, i) => i % 60 === 0);
    const clips = await Promise.all(some.map(({ audio }) => decodeAudio(audio.bytes, audio.path)));
    for (const { data, sampleRateHz, cutFromSeconds } of clips) {
      expect(sampleRateHz).toBe(16000);
      expect(cutFromSeconds).toBeUndefined();
      expect(data.length / 16000).toBeGreaterThan(0.2);
      expect(data.length / 16000).toBeLessThan(2.4);
      const loudness = Math.sqrt(data.reduce((sum, value) => sum + value * value, 0) / data.length);
      expect(loudness).toBeGreaterThan(0.02);
      expect(loudness).toBeLessThan(0.3);
    }
  });
});
