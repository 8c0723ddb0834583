// A feature thread that ends over clips that begin below zero, and else answers with what it was sent.

import { parentPort } from 'node:worker_threads';

parentPort.on('message', ({ id, clips: [{ data }] }) => {
  if (data[0] < 0) process.exit(3);
  parentPort.postMessage({ id, result: [data[0], data.length] });
});
