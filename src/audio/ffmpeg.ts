// Other codecs, and the sound of videos, through the system's ffmpeg: a process a clip, its input a file (an MP4 in a pipe
// gives nothing, and no error), its output WAV with the channels and the rate as they are, so that mixing and resampling are
// ours for every format. The input is untrusted: its demuxer is named, so that a playlist is never followed; only files
// are opened; length, size, memory and time are bounded.

import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { AudioError } from '../errors.js';
import { which } from '../native/program.js';

export interface FfmpegRequest {
  readonly where: string;
  /** FFmpeg's name of the container. */
  readonly demuxer: string;
  /** In words, for errors. */
  readonly found: string;
  readonly maxSeconds: number;
  readonly signal?: AbortSignal | undefined;
}

const TIMEOUT_MS = 120_000;
const MAX_WAV_BYTES = 2 ** 29;
const MAX_ALLOCATION_BYTES = 2 ** 28;
const KEPT_STDERR = 2 ** 16;

/** So many processes at a time, however many clips are asked for. */
class Turns {
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(places: number) {
    this.#free = places;
  }

  async take(signal: AbortSignal | undefined): Promise<void> {
    if (this.#free > 0) return void (this.#free -= 1);
    await new Promise<void>((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(enter), 1);
        reject(signal?.reason as Error);
      };
      const enter = (): void => {
        signal?.removeEventListener('abort', leave);
        resolve();
      };
      signal?.addEventListener('abort', leave, { once: true });
      this.#waiting.push(enter);
    });
  }

  give(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#free += 1;
  }
}

const turns = new Turns(Math.min(4, availableParallelism()));

/** Where ffmpeg is; undefined where it is not. */
export function findFfmpeg(): string | undefined {
  return which(['ffmpeg']);
}

/** Takes the first stream of sound out of a file.
 *  @returns the clip as WAV, a little longer than asked for, and the length of the whole where ffmpeg knows it
 *  @throws {AudioError} when ffmpeg finds no sound or a fault @throws the signal's reason when it is aborted */
export async function extractWav(
  ffmpeg: string,
  bytes: Uint8Array,
  request: FfmpegRequest,
): Promise<{ wav: Uint8Array; seconds: number | undefined }> {
  await turns.take(request.signal);
  try {
    return await extract(ffmpeg, bytes, request);
  } finally {
    turns.give();
  }
}

async function extract(
  ffmpeg: string,
  bytes: Uint8Array,
  request: FfmpegRequest,
): Promise<{ wav: Uint8Array; seconds: number | undefined }> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-audio-'));
  try {
    const [input, output] = [join(folder, 'clip'), join(folder, 'clip.wav')];
    await writeFile(input, bytes, { mode: 0o600 });
    const { code, said, isLate } = await runFfmpeg(
      ffmpeg,
      argumentsOf(request, input, output),
      folder,
      request.signal,
    );
    request.signal?.throwIfAborted();
    const size = code === 0 ? (await stat(output)).size : 0;
    if (isLate) throw refused(request, `ffmpeg was not done after ${TIMEOUT_MS / 1000} s`);
    if (code !== 0) throw refused(request, faultIn(said, input));
    if (size >= MAX_WAV_BYTES) throw refused(request, `more than ${MAX_WAV_BYTES / 2 ** 20} MiB of samples`);
    return { wav: await readFile(output), seconds: durationIn(said) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function argumentsOf({ demuxer, maxSeconds }: FfmpegRequest, input: string, output: string): string[] {
  const from = ['-protocol_whitelist', 'file', '-f', demuxer, '-i', input];
  const what = [
    '-map',
    '0:a:0',
    '-vn',
    '-sn',
    '-dn',
    '-t',
    String(maxSeconds + 1),
    '-fs',
    String(MAX_WAV_BYTES),
  ];
  const to = ['-map_metadata', '-1', '-c:a', 'pcm_f32le', '-f', 'wav', output];
  return [
    ...['-hide_banner', '-nostdin', '-nostats', '-v', 'info', '-threads', '1'],
    ...['-xerror', '-max_alloc', String(MAX_ALLOCATION_BYTES)],
    ...from,
    ...what,
    ...to,
  ];
}

interface Ended {
  readonly code: number | string;
  /** The beginning and the end of what it wrote to stderr. */
  readonly said: string;
  readonly isLate: boolean;
}

function runFfmpeg(
  ffmpeg: string,
  args: readonly string[],
  cwd: string,
  signal: AbortSignal | undefined,
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(ffmpeg, args, { cwd, stdio: ['ignore', 'ignore', 'pipe'] });
    let [said, isLate] = ['', false];
    const kill = (): void => void child.kill('SIGKILL');
    const timer = setTimeout(() => {
      isLate = true;
      kill();
    }, TIMEOUT_MS);
    if (signal?.aborted) kill();
    signal?.addEventListener('abort', kill, { once: true });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.length > 2 * KEPT_STDERR) said = said.slice(0, KEPT_STDERR) + said.slice(-KEPT_STDERR);
    });
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', kill);
    };
    child.on('error', (error) => {
      done();
      reject(error);
    });
    child.on('close', (code, killedBy) => {
      done();
      resolve({ code: code ?? killedBy ?? 'no exit code', said, isLate });
    });
  });
}

/** "Duration: 00:01:02.34" */
function durationIn(said: string): number | undefined {
  const [, hours, minutes, seconds] = /Duration: (\d+):(\d\d):(\d\d\.\d+)/.exec(said) ?? [];
  return seconds === undefined ? undefined : Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds);
}

/** The last line that is about the input. */
function faultIn(said: string, input: string): string {
  if (/Stream map '0:a:0' matches no streams/.test(said)) return 'no stream of sound';
  const lines = said
    .replaceAll(input, 'the clip')
    .replace(/\[[^\]]* @ 0x[0-9a-f]+\] /g, '')
    .split('\n');
  const fault = lines
    .filter((line) => /error|invalid|could not|not found|unknown|truncat|partial/i.test(line))
    .at(0);
  return (fault ?? lines.filter((line) => line.trim()).at(-1) ?? 'no reason').trim().slice(0, 200);
}

function refused({ where, found }: FfmpegRequest, reason: string): AudioError {
  return new AudioError({
    where,
    expected: 'sound that ffmpeg decodes without a fault',
    received: `${found}: ${reason}`,
    remedy: 'the file is truncated, corrupt or silent film: fetch it again, or drop the row',
  });
}
