// The reference's ids with pictures in some rows, and a repetition penalty that counts placeholders
// (test/reference/generate.py).

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { generate } from '../../src/generate/index.js';
import { decodeConfig } from '../../src/models/gemma3n/config.js';
import { createGemma3n } from '../../src/models/gemma3n/model.js';
import { type Tensor, cat, scope, setNumThreads, tensor } from '../../src/tensor/index.js';
import { numbers, readJson, referencePath } from '../models/text-reference.js';

beforeAll(() => setNumThreads(1));

const penalised = readJson(referencePath('generate/penalised.json')) as Record<
  string,
  { penalty: number; ids: number[][] }
>;

describe.each(['plain', 'wide'])('greedy decoding of the %s model with a repetition penalty', (name) => {
  const folder = referencePath(`multimodal-${name}`);
  const model = createGemma3n(decodeConfig(readJson(`${folder}/config.json`))).eval();
  {
    using weights = new SafetensorsFile(`${folder}/model.safetensors`);
    for (const [path, parameter] of model.namedParameters()) weights.copyInto(path, parameter);
  }
  const values = new SafetensorsFile(`${folder}/values.safetensors`);
  afterAll(() => values.close());
  const { penalty, ids: expected } = penalised[`multimodal-${name}`]!;
  const options = { maxNewTokens: 12, repetitionPenalty: penalty, eosTokenIds: [] };
  const pictures = (rows: readonly number[]): Tensor =>
    scope(() => values.read('pixel_values').indexSelect(0, tensor(BigInt64Array.from(rows, BigInt))));
  const imagesOf = [[0, 1], [2], []];

  it('gives the ids of the reference, prompt by prompt', async () => {
    for (const [i, images] of imagesOf.entries()) {
      const inputIds = values.read(`generate.prompt.${i}`);
      const rows = await generate(
        model,
        { inputIds, ...(images.length > 0 && { pixelValues: pictures(images) }) },
        options,
      );
      expect(rows).toEqual([expected[i]]);
    }
  });

  it('gives them in a left-padded batch', async () => {
    const prompts = imagesOf.map((_, i) => values.read(`generate.prompt.${i}`));
    const longest = Math.max(...prompts.map(({ shape }) => shape[1]!));
    const pad = (row: Tensor, fill: number): Tensor =>
      cat(
        [
          tensor(new BigInt64Array(longest - row.shape[1]!).fill(BigInt(fill)), [1, longest - row.shape[1]!]),
          row,
        ],
        1,
      );
    const rows = await generate(
      model,
      {
        inputIds: cat(prompts.map((row) => pad(row, 0))),
        attentionMask: cat(prompts.map((row) => pad(row.mul(0).add(1), 0))),
        pixelValues: values.read('pixel_values'),
      },
      options,
    );
    expect(rows).toEqual(expected);
    expect(numbers(prompts[0]!).filter((id) => id === model.config.imageTokenId).length).toBeGreaterThan(0);
  });
});
