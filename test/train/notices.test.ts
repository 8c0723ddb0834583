import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { batch } from '../../src/data/batch.js';
import { assistant, audio, chat, user } from '../../src/data/chat.js';
import { loadProcessor } from '../../src/data/processor.js';
import { decodeMedia, encode } from '../../src/data/stages.js';
import { part } from '../../src/parts.js';
import { decode } from '../../src/schema.js';
import { Notices, TOLD_NOTICES } from '../../src/train/notices.js';
import type { NoticeEvent, RunEvent } from '../../src/train/events.js';
import { sampleFlow } from '../../src/train/sample-flow.js';
import { tinyFolder } from '../reference/processor-values.js';

const notice = (row: number) => ({
  stage: 'encode',
  origin: { file: 'a.parquet', rowGroup: 0, row },
  message: 'clip 0 lasts 35.0 s: only its first 30.0 s are heard',
});

/** What a stream that gives `count` notices tells. */
function told(notices: Notices, count: number): NoticeEvent[] {
  const events: NoticeEvent[] = [];
  const emit = (event: NoticeEvent) => void events.push(event);
  for (let row = 0; row < count; row++) notices.take(notice(row), emit);
  notices.end(emit);
  return events;
}

/** The tiny model's processor, were its clips allowed as many soft tokens as Gemma 3n's. */
function publishedLengths(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-notices-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  cpSync(tinyFolder, folder, { recursive: true, filter: (path) => !path.endsWith('.safetensors') });
  const path = join(folder, 'config.json');
  const config = JSON.parse(readFileSync(path, 'utf8')) as object;
  writeFileSync(path, JSON.stringify({ ...config, audio_soft_tokens_per_image: 188 }));
  return folder;
}

describe('Notices', () => {
  it('are told with row and stage', () => {
    expect(told(new Notices(), 1)).toEqual([
      {
        event: 'notice',
        row: 'a.parquet row group 0 row 0',
        stage: 'encode',
        message: 'clip 0 lasts 35.0 s: only its first 30.0 s are heard',
      },
    ]);
  });

  it('are counted where they are many, and the last one stands for those not told', () => {
    const events = told(new Notices(), 1000);
    expect(events).toHaveLength(TOLD_NOTICES + 1);
    expect(events.at(-1)).toMatchObject({ row: 'a.parquet row group 0 row 999', count: 1000 - TOLD_NOTICES });
  });

  it('are not told again when their stream is run again, unless there are more', () => {
    const notices = new Notices();
    expect(told(notices, 30)).toHaveLength(21);
    expect(told(notices, 30)).toEqual([]);
    expect(told(notices, 5)).toEqual([]);
    expect(told(notices, 50)).toMatchObject([{ count: 30 }]);
  });
});

describe('a stream', () => {
  it('tells what its stages left out as events, and goes on', async () => {
    const clip = (seconds: number) => ({
      data: new Float32Array(16_000 * seconds).fill(0.1),
      sampleRateHz: 16_000,
    });
    const events: RunEvent[] = [];
    const shapes: (readonly number[])[] = [];
    await sampleFlow({
      where: '',
      source: {
        name: 'clips',
        async *open() {
          for (const [row, seconds] of [1, 31].entries()) {
            const value = chat(user(audio(clip(seconds))), assistant('yes'));
            yield { value, bytes: 100, origin: { file: 'a.parquet', rowGroup: 0, row } };
          }
        },
      },
      flow: [decodeMedia(), encode(), batch({ size: 2 })].map((entry) =>
        decode(part('stage'), entry, 'flow'),
      ),
      purpose: 'train',
      processor: await loadProcessor(publishedLengths()),
      poolBytes: 10e6,
      signal: new AbortController().signal,
      emit: (event) => void events.push(event),
      log: () => undefined,
      consume: async ({ inputFeatures }) => void shapes.push(inputFeatures!.shape),
    });
    expect(shapes).toEqual([[2, 2997, 128]]);
    expect(events).toEqual([
      {
        event: 'notice',
        row: 'a.parquet row group 0 row 1',
        stage: 'encode',
        message: 'clip 0 lasts 31.0 s: only its first 30.0 s are heard',
      },
    ]);
  });
});
