// Finding programs on PATH, and running them.

import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Env } from './cache.js';

/** The full path of the first of `names` on PATH that can be run. */
export function which(names: readonly string[], env: Env = process.env): string | undefined {
  for (const name of names) {
    for (const folder of name.includes('/') ? [''] : (env.PATH ?? '').split(delimiter)) {
      const path = folder ? join(folder, name) : name;
      try {
        fs.accessSync(path, fs.constants.X_OK);
        if (fs.statSync(path).isFile()) return path;
      } catch {
        // not here
      }
    }
  }
  return undefined;
}

/** How a program ended. */
export interface Outcome {
  /** Its exit code, or the name of the signal that killed it. */
  readonly code: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end, handing on its lines of output.
 *  @throws {Error} when it cannot be started, or the signal aborts it */
export function runProgram(
  program: string,
  args: readonly string[],
  {
    cwd,
    env,
    signal,
    onLine,
  }: { cwd: string; env: Env; signal?: AbortSignal; onLine?: (line: string) => void },
): Promise<Outcome> {
  const child = spawn(program, args, { cwd, env, signal, stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  createInterface(child.stdout).on('line', (line) => {
    stdout += `${line}\n`;
    onLine?.(line);
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, killedBy) =>
      resolve({ code: code ?? killedBy ?? 'no exit code', stdout, stderr }),
    );
  });
}

export function lastLine(text: string): string {
  return text.trim().split('\n').at(-1) ?? '';
}
