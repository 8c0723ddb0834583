// Kernels compiled for several kinds of processors give the same numbers, but for the order of sums.

import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const child = fileURLToPath(new URL('./builds.child.mjs', import.meta.url));

interface Found {
  readonly loss: number;
  /** Of each parameter's gradient. */
  readonly norms: Readonly<Record<string, number>>;
}

function found(env: Readonly<Record<string, string>>, dtype: string): Found {
  const options = { encoding: 'utf8', env: { ...process.env, ...env } } as const;
  return JSON.parse(execFileSync(process.execPath, [child, dtype], options)) as Found;
}

it.each([
  ['float32', 1e-3],
  ['bfloat16', 0.05],
])(
  'a step in %s is the same with narrow builds as with those that this processor is given',
  (dtype, within) => {
    const [own, narrow] = [found({}, dtype), found({ ATEN_CPU_CAPABILITY: 'avx2' }, dtype)];
    expect(Math.abs(own.loss / narrow.loss - 1)).toBeLessThan(within / 10);
    expect(Object.keys(own.norms)).toEqual(Object.keys(narrow.norms));
    for (const [name, norm] of Object.entries(narrow.norms)) {
      expect(Math.abs(own.norms[name]! - norm), name).toBeLessThan(within * Math.max(norm, 1e-3));
    }
  },
);
