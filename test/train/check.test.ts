// What is refused before a run: nothing is written, no model is loaded.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { evaluation, exactMatch, parquet } from '../../src/index.js';
import { type ColourRow, colourRows, modelFolder, temporaryFolder, writeRows } from './job.js';
import { type JobOptions, runJob } from './run-job.js';

async function refusal(options: JobOptions): Promise<string> {
  const { outDir, error, events } = await runJob(options);
  expect(events).toEqual([]);
  expect(readdirSync(outDir)).toEqual([]);
  return `${error?.name}: ${error?.message}`;
}

const heldOut = (file: string, options: { poolBytes?: number; columns?: string[] } = {}) => {
  const { columns, ...rest } = options;
  const source = parquet<ColourRow>(file, columns && { columns });
  return evaluation({ name: 'held', source, scores: [exactMatch()], ...rest });
};

describe('before a run', () => {
  it('a pool smaller than one batch is refused, with the numbers', async () => {
    // a sample: 64 * 64 pixels of 3 float32, 64 tokens and labels of int32
    expect(await refusal({ set: ['poolBytes=100000'] })).toBe(
      'ConfigError: pool of 100000 bytes: expected at least 198656 bytes, since batch holds up to 4 items of up to 49664 ' +
        'bytes, received 100000 bytes; raise poolBytes, or let the stage hold less',
    );
  });

  it("so is an evaluation's", async () => {
    const held = writeRows(join(temporaryFolder(), 'held.parquet'), await colourRows(1));
    expect(await refusal({ sinks: [heldOut(held, { poolBytes: 100_000 })] })).toMatch(
      /^ConfigError: held: pool of 100000 bytes: expected at least 198656 bytes, since batch holds up to 4 items/,
    );
  });

  it('files of the source and of evaluations are looked at', async () => {
    expect(await refusal({ set: ['source.files=nowhere.parquet'] })).toMatch(
      /^DataError: .*nowhere\.parquet.*: expected an existing file, received/,
    );
    expect(await refusal({ sinks: [heldOut('nothing-*.parquet')] })).toMatch(
      /^DataError: .*nothing-\*\.parquet.*: expected .*received/,
    );
    expect(await refusal({ set: ['source.columns=["picture"]'] })).toMatch(
      /^DataError: .*rows\.parquet: expected column picture, received columns image: binary; question: string/,
    );
    expect(await refusal({ rows: [] })).toMatch(
      /^DataError: .*rows\.parquet: expected at least one row, received none/,
    );
  });

  it("the model's folder must be one", async () => {
    const expected =
      "ConfigError: model.path: expected a folder with config.json, or a repository of the Hub, 'owner/name', received";
    const remedy = 'correct the path';
    const empty = temporaryFolder();
    expect(await refusal({ set: [`model.path=${empty}`] })).toBe(
      `${expected} ${empty}, which has none; ${remedy}`,
    );
    expect(await refusal({ set: [`model.path=${empty}/none`] })).toBe(
      `${expected} ${empty}/none, which does not exist; ${remedy}`,
    );
    const file = join(modelFolder(), 'tokenizer.json');
    expect(await refusal({ set: [`model.path=${file}`] })).toBe(
      `${expected} ${file}, which is no folder; ${remedy}`,
    );
  });

  it('a step needs a source', async () => {
    const change = ({ source: _source, ...rest }: Record<string, unknown>) => rest;
    expect(await refusal({ change })).toBe(
      'ConfigError: source: expected a source to train from, received nothing; add source: parquet(...), or leave out ' +
        'step to evaluate only',
    );
  });

  it('an --out that cannot be written is refused', async () => {
    for (const outDir of ['/proc/nowhere/deep', join(modelFolder(), 'tokenizer.json'), '/dev/null/run']) {
      const { error } = await runJob({ outDir });
      expect(error?.message).toMatch(
        /^--out \S+: expected a folder that can be written, received .+; choose another with --out$/,
      );
    }
  });

  it('a value that only the model can refuse is a fault of the pipeline too', async () => {
    const { error } = await runJob({ set: ['model.freeze=["model.layerz"]'] });
    expect(error?.name).toBe('ConfigError');
    expect(error?.message).toMatch(
      /^model\.freeze 'model\.layerz': expected a part .* received one that matches nothing/,
    );
  });

  it('a flow that gives no batches stops at its first value', async () => {
    const change = (spec: Record<string, unknown>) => ({
      ...spec,
      flow: (spec['flow'] as unknown[]).slice(0, -1),
    });
    const { error } = await runJob({ change });
    expect(error?.message).toBe(
      'flow: expected its last entry to give batches, received object; end it with encode() and batch({ size: 16 })',
    );
  });
});
