// Clips to 16 kHz mono samples, beside libsndfile and soxr (soundfile, librosa) in the same run.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { it } from 'vitest';
import { decodeAudio } from '../../src/audio/index.js';
import { bytesOf, wav } from '../audio/fixtures.js';
import { type BenchRow, median, printTable, pythonWith } from './table.js';

const ROUNDS = 3;
const IN_FLIGHT = 4;
const SECONDS = 5;

interface Rate {
  readonly clipsPerSecond: number;
  /** What the processor's time is worth, also on a machine that has other work. */
  readonly clipsPerCpuSecond: number;
}

interface Job {
  readonly name: string;
  readonly file: string;
  /** Clips a round. */
  readonly count: number;
}

it('decode and resample', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
  const python = pythonWith('soundfile', 'librosa', 'numpy');
  const reference = python === undefined ? undefined : startReference(python);
  try {
    // The reference writes the other formats.
    const jobs = (await reference?.prepare(folder)) ?? [writeWav(folder)];
    const rows: BenchRow[] = [];
    for (const job of jobs) {
      await measure({ ...job, count: 8 });
      const ours: Rate[] = [];
      const theirs: Rate[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        ours.push(await measure(job));
        if (reference) theirs.push(await reference.measure(job));
      }
      rows.push(
        row(`${job.name}, clips/s`, ours, theirs, (rate) => rate.clipsPerSecond),
        row(`${job.name}, clips a CPU second`, ours, theirs, (rate) => rate.clipsPerCpuSecond),
      );
    }
    const title = `Clips of ${SECONDS} s to 16 kHz mono, ${IN_FLIGHT} in flight, soundfile and librosa on ${availableParallelism()} threads`;
    printTable(title, rows);
  } finally {
    reference?.end();
    rmSync(folder, { recursive: true });
  }
}, 600_000);

function row(
  name: string,
  ours: readonly Rate[],
  theirs: readonly Rate[],
  of: (rate: Rate) => number,
): BenchRow {
  return {
    name,
    ours: median(ours.map(of)).toFixed(1),
    ...(theirs.length > 0 && {
      reference: median(theirs.map(of)).toFixed(1),
      ratio: median(ours.map((rate, round) => of(rate) / of(theirs[round]!))),
    }),
  };
}

async function measure({ file, count }: Job): Promise<Rate> {
  const bytes = new Uint8Array(readFileSync(file));
  let left = count;
  const work = async (): Promise<void> => {
    while (left-- > 0) await decodeAudio(bytes);
  };
  const begun = performance.now();
  const usage = process.cpuUsage();
  await Promise.all(Array.from({ length: IN_FLIGHT }, work));
  const { user, system } = process.cpuUsage(usage);
  return {
    clipsPerSecond: (count / (performance.now() - begun)) * 1e3,
    clipsPerCpuSecond: (count / (user + system)) * 1e6,
  };
}

function writeWav(folder: string): Job {
  const samples = Int16Array.from({ length: SECONDS * 44_100 }, (_, i) => 9_000 * Math.sin(i / 20));
  const file = join(folder, 'clip.wav');
  writeFileSync(file, wav(bytesOf(samples), { sampleRateHz: 44_100 }));
  return { name: 'WAV 44.1 kHz mono', file, count: 100 };
}

/** One Python for all rounds: a line in, a line out. */
function startReference(python: string): {
  prepare: (folder: string) => Promise<Job[]>;
  measure: (job: Job) => Promise<Rate>;
  end: () => void;
} {
  const script = fileURLToPath(new URL('./audio_decode.py', import.meta.url));
  const child = spawn(python, [script], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ask = async <T>(question: object): Promise<T> => {
    child.stdin.write(`${JSON.stringify(question)}\n`);
    const line = await lines.next();
    if (line.done) throw new Error('audio_decode.py ended early');
    return JSON.parse(line.value) as T;
  };
  return {
    prepare: (folder) => ask({ folder, seconds: SECONDS }),
    measure: ({ file, count }) => ask({ file, count, threads: availableParallelism() }),
    end: () => child.stdin.end(),
  };
}
