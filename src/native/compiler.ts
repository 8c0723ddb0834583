// The user's C++ compiler, and what to say when it is missing or fails.

import { execFileSync } from 'node:child_process';
import { messageOf, SetupError } from '../errors.js';
import type { Env } from './cache.js';
import { which } from './program.js';

export interface Compiler {
  /** The program and its first arguments: CXX may be "ccache g++". */
  readonly command: readonly string[];
  readonly path: string;
  /** First line of --version. */
  readonly version: string;
}

/** `CXX`, else c++, g++ or clang++ on PATH. @throws {SetupError} when there is none that runs */
export function findCompiler(env: Env = process.env): Compiler {
  const command = env.CXX?.trim() ? env.CXX.trim().split(/\s+/) : undefined;
  const path = which(command ? command.slice(0, 1) : ['c++', 'g++', 'clang++'], env);
  if (!path) throw noCompiler(command ? `nothing at CXX=${command.join(' ')}` : 'none on PATH', undefined);
  const whole = [path, ...(command?.slice(1) ?? [])];
  try {
    const text = execFileSync(path, [...whole.slice(1), '--version'], {
      env,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return { command: whole, path, version: text.split('\n')[0] ?? '' };
  } catch (cause) {
    throw noCompiler(`${whole.join(' ')}, which does not run: ${messageOf(cause).split('\n')[0]}`, cause);
  }
}

function noCompiler(received: string, cause: unknown): SetupError {
  const install =
    process.platform === 'darwin'
      ? '"xcode-select --install"'
      : '"apt-get install g++" or "dnf install gcc-c++"';
  return new SetupError(
    {
      where: 'addon set-up',
      expected: 'a C++20 compiler (GCC 11, Clang 14 or newer)',
      received,
      remedy: `install one with ${install}, or name it in CXX; then run "npx pipe setup"`,
    },
    { cause },
  );
}

/** The compiler's first errors as one message. */
export function compileFailed(
  what: string,
  code: number | string,
  stderr: string,
  compiler: Compiler,
): SetupError {
  const lines = stderr.trim().split('\n');
  const errors = lines.filter((line) => /error|undefined reference|cannot find|No space|Killed/i.test(line));
  const shown = (errors.length > 0 ? errors : lines.slice(-5)).slice(0, 5).join('\n  ');
  return new SetupError({
    where: `addon set-up: compiling ${what}`,
    expected: `success of ${compiler.command.join(' ')} (${compiler.version})`,
    received: `exit ${code}:\n  ${shown}\n`,
    remedy:
      'use GCC 11, Clang 14 or newer (name it in CXX) with enough disk and memory, then run "npx pipe setup" again',
  });
}
