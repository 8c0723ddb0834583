import { describe, expect, it } from 'vitest';
import { Notices, TOLD_NOTICES } from '../../src/train/notices.js';
import type { NoticeEvent } from '../../src/train/events.js';

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
