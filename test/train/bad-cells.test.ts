// Cells that are null, of another type, or huge: each costs its row, whatever the file is, and the row can be looked at.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parquetReadObjects } from 'hyparquet';
import { parquetWriteFile } from 'hyparquet-writer';
import { describe, expect, it } from 'vitest';
import { arrow, assistant, batch, chat, encode, jsonl, map, parquet, text, user } from '../../src/index.js';
import { temporaryFolder } from './job.js';
import { runJob } from './run-job.js';

const HUGE = 'x'.repeat(3 * 2 ** 20);
const rows = [
  { question: 'which?', answer: 'red' },
  { question: null, answer: 'red' },
  { question: 'which?', answer: 7 },
  { question: 'which?', answer: HUGE },
  { question: 'which?', answer: ['red'] },
  { question: 'which?', answer: 'blue' },
];

async function lose(source: unknown, row: (row: never) => unknown) {
  const ran = await runJob({
    batchSize: 2,
    change: (spec) => ({ ...spec, source, flow: [map(row), encode({ maxTokens: 64 }), batch({ size: 2 })] }),
  });
  const bytes = fs.readFileSync(join(ran.outDir, 'quarantine.parquet'));
  const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  const table: Record<string, unknown>[] = await parquetReadObjects({ file: file });
  return { ...ran, table: table.sort((a, b) => Number(a['row']) - Number(b['row'])) };
}

const asked = ({ question, answer }: { question: string; answer: string }) =>
  chat(user(text(question)), assistant(text(answer)));

describe('cells that cannot be used', () => {
  it('of JSON lines cost their rows', async () => {
    const path = join(temporaryFolder(), 'rows.jsonl');
    fs.writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    const { result, table } = await lose(jsonl(path, { maxItemBytes: 2 ** 20 }), asked);
    expect(result!.end.ledger).toEqual({ issued: 6, trained: 2, dropped: 0, quarantined: 4 });
    expect(table).toMatchObject([
      { row: 1n, stage: 'map', question: null, answer: 'red' },
      { row: 2n, stage: 'map', question: 'which?', answer: '7' },
      {
        row: 3n,
        stage: 'jsonl',
        left_out: expect.stringMatching(/^answer: \d+ bytes$/) as string,
        answer: null,
      },
      { row: 4n, stage: 'map', answer: '["red"]' },
    ]);
    expect(table[2]!['error']).toContain('expected at most 1048576 bytes (maxItemBytes)');
  });

  it('of Parquet cost their rows, with a bound on items and without', async () => {
    const filename = join(temporaryFolder(), 'rows.parquet');
    const data = rows.map(({ answer }) => JSON.stringify(answer));
    parquetWriteFile({
      filename,
      columnData: [
        { name: 'question', type: 'STRING', data: rows.map(({ question }) => question), nullable: true },
        { name: 'answer', type: 'STRING', data },
      ],
    });
    const parsed = (row: { question: string; answer: string }) =>
      asked({ ...row, answer: JSON.parse(row.answer) as string });
    for (const maxItemBytes of [2 ** 20, undefined]) {
      const source = parquet(filename, maxItemBytes === undefined ? {} : { maxItemBytes });
      const { result, table } = await lose(source, parsed);
      expect(result!.end.ledger).toMatchObject({ issued: 6, trained: 2, quarantined: 4 });
      expect(table.map(({ row, stage }) => [row, stage])).toEqual([
        [1n, 'map'],
        [2n, 'map'],
        [3n, maxItemBytes === undefined ? 'encode' : 'parquet'],
        [4n, 'map'],
      ]);
      expect(table[2]!['left_out']).toMatch(/^answer: \d+ bytes$/);
    }
  });

  it('of Arrow cost their rows', async () => {
    const path = fileURLToPath(new URL('../../fixtures/arrow/values.arrow', import.meta.url));
    const { error, table } = await lose(arrow(path), ({ binary, list }: { binary: string; list: string }) =>
      chat(user(text(binary)), assistant(text(list))),
    );
    expect(error?.message).toContain('were quarantined');
    expect(table.length).toBeGreaterThan(2);
    for (const row of table) {
      expect(row).toMatchObject({ file: path, stage: 'map', error: /^text: expected a string/ });
      expect(Object.keys(row)).toEqual(expect.arrayContaining(['id', 'text', 'binary', 'struct', 'list']));
    }
    const heavy = await lose(arrow(path, { maxItemBytes: 1 }), () => undefined);
    expect(heavy.table.map(({ stage }) => stage)).toEqual(table.map(() => 'arrow'));
  });
});
