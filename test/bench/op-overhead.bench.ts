// What one operator costs from JavaScript: `add` of two 2x2 tensors, beside Python's torch in the same run.

import { it } from 'vitest';
import { noGrad, ones, op, scope, setNumThreads } from '../../src/tensor/index.js';
import { median, printTable, pythonWith, runPython } from './table.js';

const ROUNDS = 5;
const CALLS = 200_000;
const PER_SCOPE = 1000;

it('an operator from JavaScript', () => {
  setNumThreads(1);
  const python = pythonWith('torch');
  const add = op('aten::add.Tensor');
  const a = ones([2, 2]);
  const b = ones([2, 2]);
  const measure = () => {
    const begun = performance.now();
    for (let i = 0; i < CALLS / PER_SCOPE; i++) {
      scope(() => {
        for (let k = 0; k < PER_SCOPE; k++) add(a, b);
      });
    }
    return ((performance.now() - begun) * 1000) / CALLS;
  };
  const ours: number[] = [];
  const ratios: number[] = [];
  const theirs: number[] = [];
  noGrad(() => {
    measure();
    for (let round = 0; round < ROUNDS; round++) {
      ours.push(measure());
      if (!python) continue;
      theirs.push(runPython<{ microseconds: number }>(python, './op_overhead.py').microseconds);
      ratios.push(theirs.at(-1)! / ours.at(-1)!);
    }
  });
  printTable('Operator overhead', [
    {
      name: 'add of 2x2',
      ours: `${median(ours).toFixed(2)} us`,
      ...(python && { reference: `${median(theirs).toFixed(2)} us`, ratio: median(ratios) }),
    },
  ]);
});
