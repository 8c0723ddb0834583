// Tensors that cross to another thread: the same memory, taken once.

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import {
  engine,
  forgetSent,
  full,
  liveTensors,
  noGrad,
  receiveTensor,
  sendTensor,
  zeros,
} from '../../src/tensor/index.js';
import { settledTensors } from '../live.js';

it('a tensor that was sent is taken once, without a copy and without a gradient', () => {
  using sent = full([2], 3);
  sent.requiresGrad = true;
  const number = sendTensor(sent);
  using taken = receiveTensor(number);
  expect(taken.requiresGrad).toBe(false);
  noGrad(() => sent.detach().mul_(2));
  expect(taken.toTypedArray()).toEqual(Float32Array.of(6, 6));
  expect(() => receiveTensor(number)).toThrow(
    `receiveTensor: expected a tensor that was sent and not yet taken, received ${number}, where none waits`,
  );
});

it('what nobody takes is freed when it is forgotten', async () => {
  const live = await settledTensors();
  const [before] = engine().tensorMemory(false);
  const large = zeros([1 << 20]);
  const number = sendTensor(large);
  large.dispose();
  expect(engine().tensorMemory(false)[0]).toBe(before + (4 << 20));
  forgetSent([number]);
  expect(engine().tensorMemory(false)[0]).toBe(before);
  forgetSent([number]);
  expect(liveTensors()).toBe(live);
});

it('another thread reads the memory of this one', async () => {
  using sent = full([3], 5);
  const entry = new URL('../../dist/tensor/index.js', import.meta.url).href;
  const worker = new Worker(
    `import { parentPort, workerData } from 'node:worker_threads';
     import { receiveTensor } from ${JSON.stringify(entry)};
     parentPort.postMessage([...receiveTensor(workerData).toTypedArray()]);`,
    { eval: true, workerData: sendTensor(sent) },
  );
  expect((await once(worker, 'message'))[0]).toEqual([5, 5, 5]);
  await worker.terminate();
});
