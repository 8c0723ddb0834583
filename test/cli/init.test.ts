// `pipe init`: what it writes type-checks, is planned as it is, and fits; what it refuses is said.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ConfigError } from '../../src/errors.js';
import { init, type InitArguments } from '../../src/cli/init-command.js';
import { bytesOf, fit } from '../../src/cli/init/fit.js';
import { askOnTerminal } from '../../src/cli/init/questions.js';
import { layoutOf } from '../../src/cli/init/layout.js';
import { recipeText } from '../../src/cli/init/recipe.js';
import { loadPipeline } from '../../src/cli/pipeline-file.js';
import { planDecoded } from '../../src/train/plan.js';
import { temporaryFolder } from '../train/job.js';
import { pipe } from './spawn.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const pictures = 'fixtures/easy-vqa/test.parquet';
const speech = 'fixtures/spoken-digits/test.parquet';
const tiny = 'fixtures/tiny-gemma3n';

// In the package, so that the compiler finds 'sluice' as it does in a project.
mkdirSync(join(root, 'runs'), { recursive: true });
const folder = mkdtempSync(join(root, 'runs', 'init-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let chats: string;
beforeAll(() => {
  chats = join(temporaryFolder(), 'chats.jsonl');
  const line = JSON.stringify({
    messages: [
      { role: 'user', content: 'digits: one' },
      { role: 'assistant', content: '1' },
    ],
  });
  writeFileSync(chats, `${line}\n`.repeat(200));
});

const write = (name: string, given: InitArguments) =>
  init({ file: join(folder, `${name}.pipeline.ts`), model: tiny, memory: '4GiB', yes: true, ...given });

describe('pipe init', () => {
  it('writes files that type-check, and that plan accepts as they are', { timeout: 240_000 }, async () => {
    const written = [
      await write('image', { task: 'image', data: [pictures] }),
      await write('audio', { task: 'audio', data: [speech], method: 'dora', rank: 4 }),
      await write('mixed', { task: 'mixed', data: [pictures, speech], method: 'lora' }),
      await write('text', { task: 'text', data: [chats], method: 'lora' }),
    ];
    expect(written.map(({ fit: { method } }) => method)).toEqual(['full', 'dora', 'lora', 'lora']);

    const program = ts.createProgram(
      written.map(({ file }) => file),
      {
        ...{ strict: true, noEmit: true, skipLibCheck: true, noUnusedLocals: true },
        ...{ target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.NodeNext },
        moduleResolution: ts.ModuleResolutionKind.NodeNext,
      },
    );
    const faults = ts.getPreEmitDiagnostics(program);
    expect(faults.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))).toEqual([]);

    for (const { file } of written) {
      const set = ['step.maxSteps=2', 'step.accumulate=1'];
      const { name, training, evaluations } = await planDecoded(await loadPipeline(file, set), {
        wholeEpoch: false,
        cache: false,
      });
      expect(training).toMatchObject({ steps: 2, quarantined: 0 });
      expect(evaluations).toHaveLength({ image: 1, audio: 1, mixed: 2, text: 1 }[name]!);
    }
    const scores = written.map(({ file }) => readFileSync(file, 'utf8').match(/scores: .*/g));
    const [match, words] = [
      'scores: [exactMatch(), promptAlone()],',
      'scores: [wordErrorRate(), promptAloneWords()],',
    ];
    expect(scores).toEqual([[match], [words], [match, words], ['scores: [rougeL()],']]);
    expect(readFileSync(written[1]!.file, 'utf8')).toContain(
      "dora({ rank: 4, alpha: 8, targets: ['text', 'projector'] })",
    );
  });

  it('keeps a file that is there', async () => {
    const file = join(temporaryFolder(), 'mine.pipeline.ts');
    writeFileSync(file, '// mine');
    await expect(init({ file, task: 'image', data: [pictures], yes: true })).rejects.toThrow(
      /expected a file that is not there yet, received one that is; give another name/,
    );
    expect(readFileSync(file, 'utf8')).toBe('// mine');
  });

  it('says on a command line what is missing, where there is no terminal to ask on', async () => {
    const { code, stderr, stdout } = await pipe('init', '--memory', '24GiB');
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain(
      '--task, --data: expected a value for each, since there is no terminal to ask on',
    );
    const other = await pipe('init', '--task', 'video', '--data', 'a.parquet');
    expect(other.code).toBe(2);
    expect(other.stderr).toContain('--task: expected image, audio, mixed, text, received video');
  });

  it('asks for what no flag says, and suggests what it would take', async () => {
    const file = join(temporaryFolder(), 'asked.pipeline.ts');
    const answers: Record<string, string> = { Task: 'text', Data: chats, Model: tiny, File: file };
    const asked: string[] = [];
    await init({ memory: '4GiB' }, async (question, check, suggestion) => {
      asked.push(question.split(' (')[0]!);
      return check(answers[question.split(' (')[0]!] ?? suggestion!);
    });
    expect(asked).toEqual(['Task', 'Data', 'Model', 'Method', 'File']);
    expect(existsSync(file)).toBe(true);
  });

  it.each([
    [{ task: 'image', data: ['none.parquet'] }, /--data: .*none\.parquet/],
    [{ task: 'image', data: ['a.csv'] }, /--data: expected files of \.parquet, \.jsonl or \.arrow/],
    [
      { task: 'audio', data: [pictures] },
      /--data .*expected columns of a usual layout for audio: .*received images: list<struct<bytes: binary/,
    ],
    [{ task: 'mixed', data: [pictures] }, /--data: expected pictures and sound for a mix.*received image/],
    [
      { task: 'image', data: [pictures], memory: 'much' },
      /--memory: expected the device's memory.*received much/,
    ],
    [
      { task: 'image', data: [pictures], method: 'sft' },
      /--method: expected full, lora, dora, qlora, received sft/,
    ],
    ...[NaN, 0, 1.5, -4].map(
      (rank) =>
        [
          { task: 'image', data: [pictures], method: 'lora', rank },
          /^--rank: expected a whole number above 0, received/,
        ] as const,
    ),
    [
      { task: 'image', data: [pictures], method: 'full', rank: 8 },
      /^--rank: expected none, since full fine-tuning has no adapter, received 8/,
    ],
    [
      { task: 'image', data: [pictures], memory: '24' },
      /--memory: expected the device's memory.*received 24; write a number and GiB/,
    ],
    [{ task: 'image', data: [pictures], model: '/none' }, /^--model: .*received no such folder/],
    [
      { task: 'image', data: [pictures], file: 'job.json' },
      /a file's name that ends in \.ts, received job\.json/,
    ],
  ] as const)('refuses %j', async (given, message) => {
    const error = await init({ memory: '24GiB', yes: true, ...given }).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as Error).message).toMatch(message);
  });
});

describe('questions on a terminal', () => {
  const asking = (input: PassThrough, signal = new AbortController().signal) =>
    askOnTerminal(signal, input, new PassThrough().resume());
  const noB = (answer: string) => {
    if (answer === 'b') throw new Error('not b');
    return answer;
  };

  it('take lines that are pasted at once as the answers of one after the other', async () => {
    const input = new PassThrough();
    using ask = asking(input);
    input.write('a\nb\nc\n\n');
    expect(await ask('one', noB)).toBe('a');
    expect(await ask('two', noB)).toBe('c');
    expect(await ask('three', noB, 'suggested')).toBe('suggested');
  });

  it('end with the input, and when they are interrupted', async () => {
    const input = new PassThrough();
    using ask = asking(input);
    input.end('b\n');
    await expect(ask('Task', noB)).rejects.toThrow(
      /^Task: expected an answer, received the end of the input/,
    );
    const controller = new AbortController();
    using other = asking(new PassThrough(), controller.signal);
    const answer = other('Task', noB);
    controller.abort(new Error('stopped'));
    await expect(answer).rejects.toThrow('stopped');
  });
});

describe('what fits', () => {
  const E2B = { model: 'google/gemma-3n-E2B-it', task: 'image', method: undefined, rank: undefined } as const;

  it('is what learns most of what the memory takes, with the reason', async () => {
    const methods: string[] = [];
    for (const memory of ['80GiB', '24GiB', '7GiB']) {
      const found = await fit({ ...E2B, memoryBytes: bytesOf(memory) });
      methods.push(found.method);
      expect(found.peak).toBeLessThan(0.9 * bytesOf(memory));
      expect(found.tokens * found.accumulate).toBe(16_384);
      if (found.method !== 'full')
        expect(found.reasons.join()).toMatch(/full fine-tuning would need [\d.]+ GB at least/);
    }
    expect(methods).toEqual(['full', 'lora', 'qlora']);
  });

  it('is refused with the least need where nothing does', async () => {
    const message = await fit({ ...E2B, memoryBytes: bytesOf('2GiB') }).then(
      () => 'it fits',
      (thrown: Error) => thrown.message,
    );
    const [, least] =
      /--memory: expected at least ([\d.]+ GB), for QLoRA of google\/gemma-3n-E2B-it with 512/.exec(message)!;
    const found = await fit({ ...E2B, memoryBytes: bytesOf(least!) * 1.01 });
    expect(found.method).toBe('qlora');
  });

  it('has no rank larger than a matrix', async () => {
    await expect(fit({ ...E2B, rank: 513, memoryBytes: bytesOf('80GiB') })).rejects.toThrow(
      /--rank: expected at most 512, .* google\/gemma-3n-E2B-it .*, received 513/,
    );
    expect(await fit({ ...E2B, rank: 512, memoryBytes: bytesOf('80GiB') })).toMatchObject({ rank: 512 });
  });

  it('is an adapter where a rank is named', async () => {
    const found = await fit({ ...E2B, rank: 4, memoryBytes: bytesOf('80GiB') });
    expect(found).toMatchObject({ method: 'lora', rank: 4 });
  });

  it('tells QLoRA by its frozen weights in the file', async () => {
    const found = await fit({ ...E2B, method: 'qlora', memoryBytes: bytesOf('24GiB') });
    const layout = layoutOf({ image: 'struct<bytes: binary>', question: 'string', answer: 'string' }, [
      'image',
    ])!;
    const data = [{ files: ['a.parquet'], layout }];
    const text = recipeText({ name: 'q', task: 'image', model: E2B.model, data, fit: found, version: '0' });
    expect(text).toContain("quantise: 'nf4',\n    adapter: lora({");
  });
});

describe('layouts', () => {
  it.each([
    [
      {
        images: 'list<struct<bytes: binary, path: string>>',
        texts: 'list<struct<user: string, assistant: string>>',
      },
      'images and texts',
    ],
    [{ messages: 'list<struct<role: string, content: string>>' }, 'messages'],
    [
      { images: 'list<struct<bytes: binary>>', messages: 'list<struct<content: string, role: string>>' },
      'messages and images',
    ],
    [{ audio: 'struct<bytes: binary, path: string>', sentence: 'string' }, 'audio and sentence'],
    [{ image: 'struct<bytes: binary>', query: 'string', answer: 'string' }, 'image, query and answer'],
    [{ image: 'struct<bytes: binary>', caption: 'string' }, 'image and caption'],
    [{ instruction: 'string', output: 'string' }, 'instruction and output'],
    [{ a: 'string', b: 'int64' }, undefined],
  ])('%j is %s', (columns, name) => {
    expect(layoutOf(columns as unknown as Record<string, string>, ['image', 'audio', 'text'])?.name).toBe(
      name,
    );
  });
});
