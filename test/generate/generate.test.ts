// Greedy ids are the reference's (test/reference/text.py, generate.py); the rest is checked against plain forwards.

import { describe, expect, it } from 'vitest';
import { generate } from '../../src/generate/index.js';
import { type Tensor, liveTensors, noGrad, scope, tensor } from '../../src/tensor/index.js';
import { decodeConfig } from '../../src/models/gemma3n/config.js';
import { Gemma3nText } from '../../src/models/gemma3n/gemma3n-text.js';
import { loadInto, numbers, readJson, referencePath, textReference } from '../models/text-reference.js';
import { settledTensors } from '../live.js';

const numPrompts = 3;
const penalised = readJson(referencePath('generate/penalised.json')) as Record<
  string,
  { penalty: number; ids: number[][] }
>;

function prompts(value: (name: string) => Tensor): number[][] {
  return Array.from({ length: numPrompts }, (_, i) => numbers(value(`generate.prompt.${i}`)));
}

function ids(rows: readonly (readonly number[])[]): Tensor {
  return tensor(BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0]?.length ?? 0]);
}

/** Left-padded ids and their mask. */
function leftPad(rows: readonly number[][]): { inputIds: Tensor; attentionMask: Tensor } {
  const length = Math.max(...rows.map((row) => row.length));
  const pad = (row: readonly number[], fill: number): number[] =>
    new Array<number>(length - row.length).fill(fill);
  return {
    inputIds: ids(rows.map((row) => [...pad(row, 0), ...row])),
    attentionMask: ids(rows.map((row) => [...pad(row, 0), ...row.map(() => 1)])),
  };
}

describe.each(['sharing', 'plain', 'clipped'])('greedy decoding (%s)', (name) => {
  const { model, value } = textReference(name);
  const alone = Array.from({ length: numPrompts }, (_, i) => numbers(value(`generate.alone.${i}`)));

  it('gives the ids of the reference, prompt by prompt, far beyond the sliding window', async () => {
    for (const [i, prompt] of prompts(value).entries()) {
      expect(await generate(model, { inputIds: ids([prompt]) }, { maxNewTokens: 12 })).toEqual([alone[i]]);
    }
  });

  it('gives the same ids in a left-padded batch', async () => {
    expect(await generate(model, leftPad(prompts(value)), { maxNewTokens: 12 })).toEqual(alone);
  });

  it('gives those of the reference with a repetition penalty, alone and in a batch', async () => {
    const { penalty, ids: expected } = penalised[`text-${name}`]!;
    const options = { maxNewTokens: 12, repetitionPenalty: penalty };
    for (const [i, prompt] of prompts(value).entries()) {
      expect(await generate(model, { inputIds: ids([prompt]) }, options)).toEqual([expected[i]]);
    }
    expect(await generate(model, leftPad(prompts(value)), options)).toEqual(expected);
  });

  it('gives the same ids without a cache', async () => {
    const row = [...(prompts(value)[0] ?? [])];
    const made: number[] = [];
    for (let i = 0; i < 12; i++) {
      const next = noGrad(() =>
        scope(() =>
          model
            .forward({ inputIds: ids([row]) })
            .logits.select(1, row.length - 1)
            .argmax(-1)
            .item(),
        ),
      );
      made.push(next);
      row.push(next);
    }
    expect(made).toEqual(alone[0]);
  });
});

describe('generate', () => {
  const { model, value } = textReference('sharing');
  const [prompt = []] = prompts(value);
  const greedy = numbers(value('generate.alone.0'));
  const inputs = { inputIds: ids([prompt]) };

  it('ends a row with any of several ids, and keeps the id that ended it', async () => {
    const eosTokenIds = [greedy[5] ?? 0, greedy[3] ?? 0];
    const [row] = await generate(model, inputs, { maxNewTokens: 12, eosTokenIds });
    expect(row).toEqual(greedy.slice(0, 4));
  });

  it('lets other rows go on when one has ended, and tells of no token after its end', async () => {
    const batch = leftPad(prompts(value));
    const full = await generate(model, batch, { maxNewTokens: 12 });
    const heard: [number, number][] = [];
    const end = full[1]?.[2] ?? 0;
    const rows = await generate(model, batch, {
      maxNewTokens: 12,
      eosTokenIds: end,
      onToken: (id, row) => heard.push([row, id]),
    });
    const cut = full.map((row) => (row.includes(end) ? row.slice(0, row.indexOf(end) + 1) : row));
    expect(rows).toEqual(cut);
    for (const [row, expected] of cut.entries()) {
      expect(heard.filter(([heardRow]) => heardRow === row).map(([, id]) => id)).toEqual(expected);
    }
  });

  it('leaves no tensor behind, nor changes whether the model trains', async () => {
    model.train();
    const batch = leftPad(prompts(value));
    const before = await settledTensors();
    await generate(model, batch, { maxNewTokens: 20 });
    expect(liveTensors()).toBe(before);
    expect(model.model.layers[0]?.altup.training).toBe(true);
    model.eval();
  });

  it('stops between two tokens when aborted, and frees its cache', async () => {
    const controller = new AbortController();
    const before = await settledTensors();
    const run = generate(model, inputs, {
      maxNewTokens: 1000,
      signal: controller.signal,
      onToken: () => controller.abort(new Error('enough')),
    });
    await expect(run).rejects.toThrow('enough');
    expect(liveTensors()).toBe(before);
  });

  it('draws the same tokens from the same seed, others from another, and the likeliest where top-k is 1', async () => {
    const draw = (seed: number, more = {}): Promise<number[][]> =>
      generate(model, inputs, { maxNewTokens: 12, doSample: true, seed, ...more });
    expect(await draw(1)).toEqual(await draw(1));
    expect(await draw(1)).not.toEqual(await draw(2));
    expect(await draw(3, { topK: 1 })).toEqual([greedy]);
    expect(await draw(3, { topP: 1e-6 })).toEqual([greedy]);
    expect(await draw(3, { temperature: 1e-3 })).toEqual([greedy]);
  });

  it('draws with the probabilities of the softmax, within top-k and top-p', async () => {
    const logits = noGrad(() => model.forward(inputs).logits.select(1, prompt.length - 1));
    const exp = numbers(logits).map((logit) => Math.exp(logit / 0.5));
    const order = exp.map((_, id) => id).sort((a, b) => (exp[b] ?? 0) - (exp[a] ?? 0));
    const topK = order.slice(0, 20);
    const sumOf = (list: readonly number[]): number => list.reduce((sum, id) => sum + (exp[id] ?? 0), 0);
    const nucleus: number[] = [];
    while (sumOf(nucleus) < 0.6 * sumOf(topK)) nucleus.push(topK[nucleus.length] ?? 0);

    const many = { inputIds: ids(new Array<number[]>(4000).fill(prompt)) };
    const rows = await generate(model, many, {
      maxNewTokens: 1,
      doSample: true,
      seed: 5,
      temperature: 0.5,
      topK: 20,
      topP: 0.6,
    });
    const drawn = rows.map((row) => row[0] ?? -1);
    expect(drawn.every((id) => nucleus.includes(id))).toBe(true);
    for (const id of nucleus) {
      const share = drawn.filter((other) => other === id).length / drawn.length;
      expect(Math.abs(share - (exp[id] ?? 0) / sumOf(nucleus))).toBeLessThan(0.03);
    }
  });

  it('refuses padding that is not on the left, an empty prompt and options out of range', async () => {
    const attentionMask = ids([[...prompt.slice(1).map(() => 1), 0]]);
    await expect(generate(model, { ...inputs, attentionMask }, { maxNewTokens: 1 })).rejects.toThrow(
      'generate: attentionMask of row 0: expected padding on the left, and then the prompt without a gap, ' +
        `received padding at position ${prompt.length - 1}; pad prompts on the left`,
    );
    await expect(generate(model, {}, { maxNewTokens: 1 })).rejects.toThrow(
      'expected inputIds of at least one token',
    );
    await expect(generate(model, inputs, { maxNewTokens: -1, topP: 2, topK: 0 })).rejects.toThrow(
      /generate: maxNewTokens: .*\n.*topK: .*\n.*topP: /,
    );
    await expect(
      generate(model, { ...inputs, pixelValues: tensor([0], [1, 1, 1, 1]) }, { maxNewTokens: 1 }),
    ).rejects.toThrow('expected text alone: this model is a Gemma3nForCausalLM, received pixelValues');
  });

  it('gives nothing for no new tokens', async () => {
    expect(await generate(model, inputs, { maxNewTokens: 0 })).toEqual([[]]);
  });

  it('asks `stop` after each token of each row, and tells once why a row has ended', async () => {
    const batch = leftPad(prompts(value));
    const full = await generate(model, batch, { maxNewTokens: 5 });
    const asked: string[] = [];
    const ended: [string, number][] = [];
    const rows = await generate(model, batch, {
      maxNewTokens: 5,
      eosTokenIds: full[2]![1]!,
      stop: (ids, row) => {
        asked.push(`${row}:${ids.join(' ')}`);
        return row === 0 && ids.length === 3;
      },
      onEnd: (reason, row) => ended.push([reason, row]),
    });
    expect(rows).toEqual([full[0]!.slice(0, 3), full[1], full[2]!.slice(0, 2)]);
    expect(ended).toEqual([
      ['stop', 2],
      ['stop', 0],
      ['length', 1],
    ]);
    expect(asked).toEqual(expect.arrayContaining([`0:${rows[0]!.join(' ')}`, `2:${rows[2]!.join(' ')}`]));
    expect(asked).toHaveLength(3 + 5 + 2);
  });

  it('tells of each open row that it was cancelled', async () => {
    const ended: [string, number][] = [];
    const controller = new AbortController();
    const run = generate(model, leftPad(prompts(value)), {
      maxNewTokens: 50,
      signal: controller.signal,
      stop: (_, row) => row === 1,
      onToken: () => controller.abort(new Error('enough')),
      onEnd: (reason, row) => ended.push([reason, row]),
    });
    await expect(run).rejects.toThrow('enough');
    expect(ended).toEqual([
      ['stop', 1],
      ['cancelled', 0],
      ['cancelled', 2],
    ]);
  });

  it('frees everything when a callback fails', async () => {
    const before = await settledTensors();
    const fail = (): never => {
      throw new Error('mine');
    };
    for (const callback of ['stop', 'onToken', 'onEnd'] as const) {
      const options = { maxNewTokens: 2, repetitionPenalty: 2, [callback]: fail };
      await expect(generate(model, inputs, options)).rejects.toThrow('mine');
    }
    expect(liveTensors()).toBe(before);
  });

  it('draws where an option of drawing is given, unless told not to', async () => {
    const run = (options: object) => generate(model, inputs, { maxNewTokens: 12, seed: 3, ...options });
    const drawn = await run({ doSample: true });
    expect(drawn).not.toEqual([greedy]);
    expect(await run({})).toEqual([greedy]);
    expect(await run({ temperature: 1 })).toEqual(drawn);
    expect(await run({ minP: 0 })).toEqual(drawn);
    expect(await run({ doSample: false, temperature: 5, minP: 0.01, topK: 50, topP: 0.99 })).toEqual([
      greedy,
    ]);
  });

  it('draws for a row of a batch what it draws alone with the same seed, whenever others end', async () => {
    const all = prompts(value);
    const options = { maxNewTokens: 12, temperature: 1.5, topK: 40 };
    const seeds = [8, 9, 10];
    const alone = [];
    for (const [i, row] of all.entries()) {
      alone.push((await generate(model, { inputIds: ids([row]) }, { ...options, seed: seeds[i]! }))[0]);
    }
    expect(await generate(model, leftPad(all), { ...options, seed: seeds })).toEqual(alone);
    const cut = await generate(model, leftPad(all), {
      ...options,
      seed: seeds,
      stop: (made, row) => row === 1 && made.length === 4,
    });
    expect(cut).toEqual([alone[0], alone[1]!.slice(0, 4), alone[2]]);
    const same = await generate(model, { inputIds: ids([prompt, prompt]) }, { ...options, seed: 8 });
    expect(same[0]).not.toEqual(same[1]);
  });
});

describe('the context', () => {
  const { value } = textReference('sharing');
  const all = prompts(value);
  const context = 12; // the prompts have 7, 3 and 9 tokens
  const folder = referencePath('text-sharing');
  const json = { ...readJson(`${folder}/config.json`), max_position_embeddings: context };
  const model = new Gemma3nText(decodeConfig(json)).eval();
  loadInto(model, `${folder}/model.safetensors`);

  it('ends each row where prompt and answer fill it', async () => {
    const reasons: string[] = [];
    const rows = await generate(model, leftPad(all), {
      maxNewTokens: 100,
      onEnd: (reason) => reasons.push(reason),
    });
    const expected = all.map((row, i) =>
      numbers(value(`generate.alone.${i}`)).slice(0, context - row.length),
    );
    expect(rows).toEqual(expected);
    expect(reasons).toEqual(['length', 'length', 'length']);
  });

  it('refuses a prompt that leaves no room in it, naming the row', async () => {
    const long = Array.from({ length: context }, () => 5);
    await expect(generate(model, leftPad([all[0]!, long]), { maxNewTokens: 1 })).rejects.toThrow(
      "generate: prompt of row 1: expected fewer tokens than the model's context of 12, so that an answer can follow, " +
        'received 12; shorten the prompt, or leave earlier turns, pictures or clips out',
    );
    await expect(generate(model, { inputIds: ids([[...long, 5]]) }, { maxNewTokens: 1 })).rejects.toThrow(
      'received 13',
    );
  });
});
