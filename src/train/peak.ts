// How many floating point operations a second this machine's matrix products reach: what a step's speed is a share of.
// Measured where it is used, in the run's dtype and with its threads; a file may keep the best that was seen.

import * as fs from 'node:fs';
import { arch, cpus } from 'node:os';
import { dirname } from 'node:path';
import { besideOf, readJson } from '../lock.js';
import { z } from '../schema.js';
import { type DType, type Tensor, getNumThreads, noGrad, op, ones, scope } from '../tensor/index.js';

/** Sizes of square products, from one that takes no time anywhere to one that fills a large GPU. */
const SIZES = [256, 512, 1024, 2048, 4096, 8192];
/** Products of a size; the fastest counts, as whatever else runs on the machine only slows them. */
const REPEATS = 3;
/** Milliseconds in all: where nothing is known, to look again where something is, and where nothing is kept. */
const FIRST_MS = 300;
const AGAIN_MS = 60;
const UNKEPT_MS = 40;

const matmul = op('aten::mm.out');

export interface PeakOptions {
  readonly dtype: DType;
  readonly device: string;
  /** Holds what was measured, by processor, threads, dtype and device; made where it is missing. */
  readonly file?: string | undefined;
  /** Of a larger size than fits in it, nothing is measured. */
  readonly budgetMs?: number;
}

const KEPT = z.record(z.string(), z.number().positive());

/** Floating point operations a second, at best. A busy machine gives too little: with a file, the best that any run saw. */
export function peakFlops({ dtype, device, file, budgetMs }: PeakOptions): number {
  const key = [cpus()[0]?.model ?? arch(), `${getNumThreads()} threads`, dtype, device].join(', ');
  const kept = file === undefined ? {} : read(file);
  const known = kept[key];
  const usual = file === undefined ? UNKEPT_MS : known === undefined ? FIRST_MS : AGAIN_MS;
  const measured = measure(dtype, device, budgetMs ?? usual);
  if (known !== undefined && known >= measured) return known;
  if (file !== undefined) write(file, { ...read(file), [key]: measured });
  return measured;
}

/** The best over growing sizes, while the next one fits in the time. */
function measure(dtype: DType, device: string, budgetMs: number): number {
  const begun = performance.now();
  let best = 0;
  for (const size of SIZES) {
    const flops = 2 * size ** 3;
    const left = budgetMs - (performance.now() - begun);
    if (best > 0 && (1000 * flops) / best > left / 2) break;
    best = Math.max(best, flops / fastest(size, dtype, device, left));
  }
  return best;
}

/** Seconds of the fastest of some products. */
function fastest(size: number, dtype: DType, device: string, budgetMs: number): number {
  return noGrad(() =>
    scope(() => {
      const a = ones([size, size], { dtype, device });
      const result = ones([size, size], { dtype, device });
      const begun = performance.now();
      let least = Infinity;
      for (let i = 0; i < REPEATS; i++) {
        const at = performance.now();
        matmul(a, a, result);
        wait(result);
        const now = performance.now();
        least = Math.min(least, now - at);
        if (now - begun + least > budgetMs) break;
      }
      return Math.max(least, 1e-3) / 1000;
    }),
  );
}

/** Until the device has computed it. */
function wait(result: Tensor): void {
  if (result.device !== 'cpu') result.narrow(0, 0, 1).narrow(1, 0, 1).item();
}

function read(file: string): Readonly<Record<string, number>> {
  const found = KEPT.safeParse(readJson(file));
  return found.success ? found.data : {};
}

/** A run does not fail for want of it. */
function write(file: string, kept: Readonly<Record<string, number>>): void {
  try {
    fs.mkdirSync(dirname(file), { recursive: true });
    const beside = besideOf(file);
    fs.writeFileSync(beside, `${JSON.stringify(kept, null, 2)}\n`);
    fs.renameSync(beside, file);
  } catch {
    // measured again next time
  }
}
