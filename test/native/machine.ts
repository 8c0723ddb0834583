// A machine to set up on: a folder with an empty cache, a bin folder that is all of PATH, and stand-ins for what the
// real compiler and pip would take minutes and gigabytes for.

import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { onTestFinished } from 'vitest';
import { cpuLibrary } from '../../src/native/engine.js';
import type { SetupLog } from '../../src/native/progress.js';
import { ensureSetup } from '../../src/native/setup.js';

export interface Machine {
  readonly folder: string;
  readonly cache: string;
  readonly env: Record<string, string>;
  /** Puts a shell script on PATH. Programs in it need their full path. */
  program(name: string, script: string): string;
  /** Lines that the stand-ins wrote: "compile FILE", "link", "download NAME". */
  calls(): string[];
}

/** An empty machine; gone when the test ends. */
export function machine(): Machine {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-machine-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const [bin, cache, calls] = [join(folder, 'bin'), join(folder, 'cache'), join(folder, 'calls')];
  mkdirSync(bin);
  writeFileSync(calls, '');
  return {
    folder,
    cache,
    env: { PATH: bin, HOME: folder, SLUICE_CACHE: cache, CALLS: calls },
    program(name, script) {
      writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`);
      chmodSync(join(bin, name), 0o755);
      return join(bin, name);
    },
    calls: () => readFileSync(calls, 'utf8').trim().split('\n').filter(Boolean),
  };
}

/** A libtorch that is the real one behind links, so that it counts as another folder. */
export async function linkedEngine({ folder }: Machine): Promise<string> {
  const { engine } = await ensureSetup();
  const root = join(folder, 'libtorch');
  mkdirSync(root);
  for (const name of ['include', 'lib', 'version.py']) symlinkSync(join(engine.root, name), join(root, name));
  return root;
}

/** A folder that looks like a libtorch and holds no code. */
export function hollowEngine(root: string, version: string, cmake = ''): string {
  write(join(root, 'include/ATen/ATen.h'), '');
  write(join(root, 'lib', cpuLibrary), 'not a library');
  write(join(root, 'version.py'), `__version__ = '${version}'\n`);
  write(join(root, 'share/cmake/Torch/TorchConfig.cmake'), cmake);
  return root;
}

/** A c++ that writes an empty object for each source, and the real addon where it links.
 *  @param hook shell run before each compilation, with the source's name in $file */
export async function quickCompiler(on: Machine, hook = ''): Promise<void> {
  const { addon } = await ensureSetup();
  on.program(
    'c++',
    `
if [ "$1" = --version ]; then echo "quick c++ 1.0"; exit; fi
for word in "$@"; do
  case "$word" in *.cc) file="$word";; esac
  [ "$previous" = -o ] && out="$word"
  previous="$word"
done
case " $* " in
  *" -shared "*|*" -bundle "*) echo link >> "$CALLS"; exec /bin/cp "${addon}" "$out";;
esac
${hook}
echo "compile $file" >> "$CALLS"
echo object > "$out"`,
  );
}

/** The real Python's own path, behind whatever shim is on PATH; undefined when there is none. */
export function realPython(): string | undefined {
  try {
    return execFileSync('python3', ['-c', 'import sys; print(sys.executable)'], { encoding: 'utf8' }).trim();
  } catch {
    return undefined;
  }
}

/** A log that remembers. */
export function memoryLog(): SetupLog & { readonly lines: string[] } {
  const lines: string[] = [];
  return {
    lines,
    line: (text) => void lines.push(text),
    progress: (label, done, total, unit) => void lines.push(`${label} ${done}/${total ?? '?'} ${unit}`),
  };
}

export function write(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}
