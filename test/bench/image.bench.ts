// Pictures to pixel values, decoded and resized, beside PIL and torchvision in the same run.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { it } from 'vitest';
import { decodeImage, imageSettings, pixelValues } from '../../src/image/index.js';
import { type BenchRow, median, printTable, pythonWith } from './table.js';

const ROUNDS = 3;
const IN_FLIGHT = 4;

interface Rate {
  readonly imagesPerSecond: number;
  /** What the processor's time is worth, also on a machine that has other work. */
  readonly imagesPerCpuSecond: number;
}

interface Job {
  readonly name: string;
  readonly file: string;
  /** The side of the square that it becomes. */
  readonly size: number;
  /** Images a round. */
  readonly count: number;
}

it('decode and resize', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
  const python = pythonWith('torch', 'torchvision', 'PIL');
  const reference = python === undefined ? undefined : startReference(python);
  try {
    const jobs = await writeJobs(folder);
    const rows: BenchRow[] = [];
    for (const job of jobs) {
      await measure(job);
      const ours: Rate[] = [];
      const theirs: Rate[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        ours.push(await measure(job));
        if (reference) theirs.push(await reference.measure(job));
      }
      rows.push(
        row(`${job.name}, images/s`, ours, theirs, (rate) => rate.imagesPerSecond),
        row(`${job.name}, images a CPU second`, ours, theirs, (rate) => rate.imagesPerCpuSecond),
      );
    }
    printTable(`Decode and resize, ${IN_FLIGHT} in flight, PIL on ${availableParallelism()} threads`, rows);
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
    ours: median(ours.map(of)).toFixed(0),
    ...(theirs.length > 0 && {
      reference: median(theirs.map(of)).toFixed(0),
      ratio: median(ours.map((rate, round) => of(rate) / of(theirs[round]!))),
    }),
  };
}

async function measure({ file, size, count }: Job): Promise<Rate> {
  const bytes = readFileSync(file);
  const settings = imageSettings(
    { size: { height: size, width: size }, resample: 2, do_normalize: false },
    'bench',
  );
  let left = count;
  const work = async (): Promise<void> => {
    while (left-- > 0) await pixelValues([await decodeImage(bytes)], settings);
  };
  const begun = performance.now();
  const usage = process.cpuUsage();
  await Promise.all(Array.from({ length: IN_FLIGHT }, work));
  const { user, system } = process.cpuUsage(usage);
  return {
    imagesPerSecond: (count / (performance.now() - begun)) * 1e3,
    imagesPerCpuSecond: (count / (user + system)) * 1e6,
  };
}

/** One Python for all rounds, so that none waits for torch to load: a line in, a line out. */
function startReference(python: string): { measure: (job: Job) => Promise<Rate>; end: () => void } {
  const script = fileURLToPath(new URL('./image.py', import.meta.url));
  const child = spawn(python, [script], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    measure: async ({ file, size, count }) => {
      child.stdin.write(`${JSON.stringify({ file, size, count, threads: availableParallelism() })}\n`);
      const line = await lines.next();
      if (line.done) throw new Error('image.py ended early');
      return JSON.parse(line.value) as Rate;
    },
    end: () => child.stdin.end(),
  };
}

/** Waves with noise: about as hard to decode as a photograph. */
async function writeJobs(folder: string): Promise<Job[]> {
  const jobs: Job[] = [];
  const add = async (width: number, height: number, type: 'jpeg' | 'png', size: number, count: number) => {
    const file = join(folder, `${width}x${height}.${type}`);
    const raw = sharp(picture(width, height), { raw: { width, height, channels: 3 } });
    writeFileSync(file, await (type === 'jpeg' ? raw.jpeg({ quality: 90 }) : raw.png()).toBuffer());
    jobs.push({ name: `${width}x${height} ${type.toUpperCase()} to ${size}x${size}`, file, size, count });
  };
  await add(1024, 768, 'jpeg', 768, 60);
  await add(640, 480, 'jpeg', 768, 80);
  await add(640, 480, 'png', 768, 60);
  await add(64, 64, 'png', 64, 1500);
  return jobs;
}

function picture(width: number, height: number): Uint8Array {
  const data = new Uint8Array(width * height * 3);
  let state = 1;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++, at++) {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        const noise = (state / 2 ** 32 - 0.5) * 24;
        data[at] = Math.max(0, Math.min(255, 128 + 90 * Math.sin(x / (9 + 4 * c) + y / 17) + noise));
      }
    }
  }
  return data;
}
