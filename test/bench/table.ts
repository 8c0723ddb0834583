// What benchmarks share: medians, a table of ratios, and the reference in Python where it is installed.

import { execFileSync, spawnSync } from 'node:child_process';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';

export interface BenchRow {
  readonly name: string;
  /** With its unit. */
  readonly ours: string;
  /** With its unit; absent where the reference is not installed. */
  readonly reference?: string;
  /** How many times better than the reference. */
  readonly ratio?: number;
}

/** Prints rows as a Markdown table, the machine above it. */
export function printTable(title: string, rows: readonly BenchRow[]): void {
  const lines = [
    '',
    `## ${title}`,
    `${cpus().length} x ${cpus()[0]?.model ?? 'unknown processor'}, Node ${process.versions.node}`,
    '',
    '| what | Sluice | reference | ratio |',
    '|---|---|---|---|',
    ...rows.map(
      ({ name, ours, reference, ratio }) =>
        `| ${name} | ${ours} | ${reference ?? 'not installed'} | ${ratio === undefined ? '' : `${ratio.toFixed(2)}x`} |`,
    ),
    '',
  ];
  console.log(lines.join('\n'));
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** A Python that can import `modules`: SLUICE_PYTHON, or python3; undefined, said aloud, when there is none. */
export function pythonWith(...modules: readonly string[]): string | undefined {
  const python = process.env['SLUICE_PYTHON'] ?? 'python3';
  const probe = spawnSync(python, ['-c', `import ${modules.join(', ')}`], { stdio: 'ignore' });
  if (probe.status === 0) return python;
  console.log(`No reference: ${python} has no ${modules.join(', ')} (SLUICE_PYTHON names another Python)`);
  return undefined;
}

/** Runs a script beside the benchmarks and parses the JSON of its last line. */
export function runPython<T>(python: string, script: string, args: readonly string[] = []): T {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const out = execFileSync(python, [path, ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 2 ** 26,
  });
  return JSON.parse(out.trim().split('\n').at(-1)!) as T;
}
