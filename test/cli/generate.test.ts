// `pipe generate` as its users start it, on the small model that captions pictures.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { mediaFiles } from '../../src/cli/media-arguments.js';
import { fromConfig, savePretrained } from '../../src/models/gemma3n/index.js';
import { shapePicture } from '../generate/pictures.js';
import { eventsIn, temporaryFolder } from '../train/job.js';
import { type Started, pipe, start } from './spawn.js';

const checkpoint = fileURLToPath(new URL('../../fixtures/tiny-gemma3n', import.meta.url));
const folder = temporaryFolder();
const triangle = join(folder, 'a red triangle.png');
const circle = join(folder, 'circle.png');

beforeAll(async () => {
  fs.writeFileSync(triangle, await shapePicture('triangle', 'red'));
  fs.writeFileSync(circle, await shapePicture('circle', 'blue'));
});

/** The small model's folder with other files; `null` leaves one out. */
function variant(files: Readonly<Record<string, string | null>>): string {
  const made = temporaryFolder();
  for (const name of fs.readdirSync(checkpoint)) {
    if (!name.endsWith('.py') && files[name] !== null)
      fs.copyFileSync(join(checkpoint, name), join(made, name));
  }
  for (const [name, text] of Object.entries(files))
    if (text !== null) fs.writeFileSync(join(made, name), text);
  return made;
}

const config = (): Record<string, Record<string, unknown>> =>
  JSON.parse(fs.readFileSync(join(checkpoint, 'config.json'), 'utf8')) as Record<
    string,
    Record<string, unknown>
  >;

/** A model of random weights that answers hello with one word for ever. */
async function endless(): Promise<string> {
  const made = variant({ 'model.safetensors': null });
  const { text_config, ...rest } = config();
  const model = fromConfig(
    { ...rest, text_config: { ...text_config, max_position_embeddings: 30_000 } },
    { seed: 1 },
  );
  await savePretrained(model, made);
  model.dispose();
  return made;
}

describe('pipe generate', () => {
  it('captions a picture', async () => {
    const { code, stdout, stderr } = await pipe('generate', checkpoint, '--prompt', '', '--image', triangle);
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'a red triangle\n', stderr: '' });
  });

  it('with --json writes a line for each token and one for the end, and nothing else', async () => {
    const args = ['--prompt', '', `--image=${circle}`, '--json', '--system', 'say what you see'];
    const { code, stdout } = await pipe('generate', checkpoint, ...args);
    expect(code).toBe(0);
    const events = eventsIn(stdout);
    const tokens = events.slice(0, -1);
    const end = events.at(-1)!;
    expect(tokens.every(({ event }) => event === 'token')).toBe(true);
    expect(end).toMatchObject({
      event: 'end',
      text: 'a blue circle',
      reason: 'stop',
      newTokens: tokens.length,
    });
    expect(tokens.map(({ text }) => text).join('')).toBe(end['text']);
    expect(tokens.map(({ id }) => id)).toEqual(end['ids']);
    expect(end['promptTokens']).toBeGreaterThan(20);
    expect(end['tokensPerSecond']).toBeGreaterThan(0);
  });

  it('draws where an option of drawing is given, the same with the same seed', async () => {
    const draw = async (...more: string[]) =>
      (await pipe('generate', checkpoint, '--prompt', 'hello', '--max-new-tokens', '6', '--json', ...more))
        .stdout;
    const ids = async (...more: string[]) => eventsIn(await draw(...more)).at(-1)!['ids'];
    const [one, again, other, greedy] = await Promise.all([
      ids('--temperature', '3', '--seed', '1'),
      ids('--temperature', '3', '--seed', '1'),
      ids('--temperature', '3', '--seed', '2', '--top-k', '300', '--top-p', '0.99', '--min-p', '0.0001'),
      ids(),
    ]);
    expect(one).toEqual(again);
    expect(one).not.toEqual(other);
    expect(one).not.toEqual(greedy);
  });

  it('reads the prompt from stdin, ends at a stop string, and says when it was cut off', async () => {
    const run = start(
      ['generate', checkpoint, '--prompt', '-', '--image', triangle, '--stop', 'tri', '--stop', 'xyz'],
      undefined,
      'pipe',
    );
    run.child.stdin!.end('what is it?');
    const [{ code }, cut] = await Promise.all([
      run.ended,
      pipe('generate', checkpoint, '--prompt', '', '--image', triangle, '--max-new-tokens', '2'),
    ]);
    expect(run.output.stdout).toBe('a red \n');
    expect(code).toBe(0);
    expect(cut.stdout).toMatch(/^a .*\n$/);
    expect(cut.stderr).toBe('[cut off after 2 tokens; --max-new-tokens allows more]\n');
  });

  it('takes pictures and clips in the order of the command line', () => {
    const args = [
      'generate',
      'x',
      '--image',
      'a',
      '--audio=b=c',
      '--prompt',
      'p',
      '--audio',
      'd',
      '--image',
      'e f',
    ];
    expect(mediaFiles([...args, '--', '--image', 'g']).map(({ kind, path }) => `${kind} ${path}`)).toEqual([
      'image a',
      'audio b=c',
      'audio d',
      'image e f',
    ]);
  });

  it.each([
    ['no prompt', [], 2, 'pipe generate: expected --prompt TEXT, or --interactive, received neither'],
    ['an empty prompt', ['--prompt', ''], 2, 'received an empty prompt'],
    [
      'a missing picture',
      ['--prompt', 'a', '--image', 'no.png'],
      2,
      '--image no.png: expected a file that can be read, received no such file',
    ],
    [
      'a picture that is none',
      ['--prompt', 'a', '--image', join(checkpoint, 'config.json')],
      1,
      'ImageError: ',
    ],
    [
      'options out of range',
      ['--prompt', 'a', '--temperature', '0', '--top-p', '2'],
      2,
      /pipe generate: temperature: expected a number above 0 .*\npipe generate: topP: /,
    ],
    [
      'an option twice',
      ['--prompt', 'a', '--seed', '1', '--seed', '2'],
      2,
      '--seed: expected one value, received 1 and 2; leave all but one out',
    ],
    ['a prompt for a chat', ['--prompt', 'a', '--interactive'], 2, 'received --prompt'],
    ['an unknown option', ['--prompt', 'a', '--top-kk', '1'], 2, /Unknown arguments?: top-kk/],
  ] as const)('%s is refused', async (_, args, code, message) => {
    const run = await pipe('generate', checkpoint, ...args);
    expect(run.stderr).toMatch(message);
    expect([run.code, run.stdout]).toEqual([code, '']);
  });

  it('refuses a checkpoint that is none, or has no tokenizer', async () => {
    const [none, bare] = await Promise.all([
      pipe('generate', './nowhere', '--prompt', 'a'),
      pipe('generate', variant({ 'tokenizer.json': null }), '--prompt', 'a'),
    ]);
    expect(none).toMatchObject({ code: 1, stdout: '' });
    expect(none.stderr).toMatch(/CheckpointError: .*nowhere/);
    expect(bare).toMatchObject({ code: 1, stdout: '' });
    expect(bare.stderr).toContain('tokenizer.json');
  });

  it('refuses more pictures than the template takes, and clips that a model cannot hear', async () => {
    const template = fs.readFileSync(join(checkpoint, 'chat_template.jinja'), 'utf8');
    const oneImage = template.replace(
      "{{ '<image_soft_token>' }}",
      "{{ '<image_soft_token>' if loop.first else '' }}",
    );
    expect(oneImage).not.toBe(template);
    const { audio_config: _audio, ...deaf } = config();
    const wav = join(folder, 'silence.wav');
    fs.writeFileSync(wav, silence(1));
    const [many, clip] = await Promise.all([
      pipe(
        'generate',
        variant({ 'chat_template.jinja': oneImage }),
        '--prompt',
        'a',
        '--image',
        triangle,
        '--image',
        circle,
      ),
      pipe('generate', variant({ 'config.json': JSON.stringify(deaf) }), '--prompt', 'a', '--audio', wav),
    ]);
    expect(many.stderr).toMatch(/TextError: .*expected 2 image placeholders .*image 1 .*no placeholder/);
    expect(clip.stderr).toMatch(/Error: .*audio/);
    for (const run of [many, clip]) expect([run.code, run.stdout]).toEqual([1, '']);
  });

  it('refuses a prompt longer than the context, and says when an answer fills it', async () => {
    const { text_config, ...rest } = config();
    const short = variant({
      'config.json': JSON.stringify({
        ...rest,
        text_config: { ...text_config, max_position_embeddings: 32 },
      }),
    });
    const [long, full] = await Promise.all([
      pipe('generate', short, '--prompt', 'a b c d e f g h i j k l m n o p q r s t u v w x y z'),
      pipe('generate', short, '--prompt', '', '--image', triangle),
    ]);
    expect(long).toMatchObject({ code: 1, stdout: '' });
    expect(long.stderr).toContain(
      "expected fewer tokens than the model's context of 32, so that an answer can follow",
    );
    expect(full.code).toBe(0);
    expect(full.stderr).toBe('[the context of 32 tokens is full]\n');
  });
});

describe('pipe generate that is stopped', () => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('by %s tells so in its last line, and leaves with %i', async (signal, code) => {
    const run = start([
      'generate',
      await endless(),
      '--prompt',
      'hello',
      '--json',
      '--max-new-tokens',
      '20000',
    ]);
    await run.saw('"event":"token"');
    run.child.kill(signal);
    expect(await run.ended).toEqual({ code, signal: null });
    expect(eventsIn(run.output.stdout).at(-1)).toMatchObject({ event: 'end', reason: 'cancelled' });
    expect(run.output.stderr).toContain(`Stopped by ${signal}`);
  });

  it('ends when nobody reads it any more', async () => {
    const run = start(['generate', await endless(), '--prompt', 'hello', '--max-new-tokens', '20000']);
    await run.saw('yellow');
    run.child.stdout!.destroy();
    const { code } = await run.ended;
    expect(code).toBe(1);
    expect(run.output.stderr).toContain('stdout: expected somebody who reads it');
  });
});

describe('a chat', () => {
  const chat = (model: string, ...more: string[]): Started & { say: (line: string) => void } => {
    const run = start(['generate', model, '--interactive', ...more], undefined, 'pipe');
    return { ...run, say: (line) => void run.child.stdin!.write(`${line}\n`) };
  };

  it('keeps the conversation, shows pictures, forgets, and goes on after errors', async () => {
    const run = chat(checkpoint, '--json');
    const ends = () => eventsIn(run.output.stdout).filter(({ event }) => event === 'end');
    for (const line of [`/image ${triangle}`, '', 'sure?', '/image no.png', '/nothing']) run.say(line);
    for (const line of ['word '.repeat(3000), '/reset', `/image ${circle}`, '', '/exit']) run.say(line);
    expect(await run.ended).toEqual({ code: 0, signal: null });
    const [first, second, third, ...more] = ends();
    expect(more).toEqual([]);
    expect(first).toMatchObject({ text: 'a red triangle', reason: 'stop' });
    expect(second!['promptTokens']).toBeGreaterThan((first!['promptTokens'] as number) + 4);
    expect(third).toMatchObject({ text: 'a blue circle', promptTokens: first!['promptTokens'] });
    expect(run.output.stderr).toContain('--image no.png: expected a file that can be read');
    expect(run.output.stderr).toContain('no command /nothing\n/image FILE');
    expect(run.output.stderr).toMatch(/model's context of 2048[^]*\[the turn is left out\]/);
  });

  it('ends with its input', async () => {
    const run = chat(checkpoint);
    run.child.stdin!.end(`/image ${circle}\n\n`);
    expect(await run.ended).toEqual({ code: 0, signal: null });
    expect(run.output.stdout).toBe('a blue circle\n');
  });

  it('one SIGINT stops the answer, two without a line between them leave', async () => {
    const run = chat(await endless(), '--max-new-tokens', '20000');
    run.say('hello');
    await run.saw('yellow');
    run.child.kill('SIGINT');
    await run.saw('[stopped]');
    run.say('/what');
    await run.saw('no command /what');
    run.child.kill('SIGINT');
    await run.saw('(once more to leave)');
    run.child.kill('SIGINT');
    expect(await run.ended).toEqual({ code: 130, signal: null });
    expect(run.output.stdout).toMatch(/yellow\n$/);
  });

  it('SIGTERM leaves in the middle of an answer', async () => {
    const run = chat(await endless(), '--max-new-tokens', '20000');
    run.say('hello');
    await run.saw('yellow');
    run.child.kill('SIGTERM');
    expect(await run.ended).toEqual({ code: 143, signal: null });
  });
});

/** A WAV file of so many seconds, 16 kHz, 16 bits. */
function silence(seconds: number): Uint8Array {
  const data = new DataView(new ArrayBuffer(44 + 32_000 * seconds));
  const text = (at: number, value: string) =>
    [...value].forEach((c, i) => data.setUint8(at + i, c.charCodeAt(0)));
  text(0, 'RIFF');
  data.setUint32(4, data.byteLength - 8, true);
  text(8, 'WAVEfmt ');
  data.setUint32(16, 16, true);
  data.setUint16(20, 1, true);
  data.setUint16(22, 1, true);
  data.setUint32(24, 16_000, true);
  data.setUint32(28, 32_000, true);
  data.setUint16(32, 2, true);
  data.setUint16(34, 16, true);
  text(36, 'data');
  data.setUint32(40, 32_000 * seconds, true);
  return new Uint8Array(data.buffer);
}
