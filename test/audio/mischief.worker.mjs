// A decoding thread that does what the clip's name says.

import { parentPort } from 'node:worker_threads';

let clips = 0;

parentPort.on('message', ({ clip, length, bytes }) => {
  clips++;
  const [word, ms = '0'] = clip.where.split(' ');
  const answer = () =>
    parentPort.postMessage({ decoded: { data: Float32Array.of(clips, length, bytes?.[0] ?? -1) } });
  if (word === 'hang') for (;;);
  if (word === 'exit') process.exit(3);
  if (word === 'throw') throw new Error('out of nowhere');
  if (word === 'swell') for (const held = []; ;) held.push(new Array(1e5).fill(held.length));
  if (word === 'broken') return parentPort.postMessage({ failed: 'it broke', isBroken: true });
  if (word === 'refuse') return parentPort.postMessage({ failed: 'refused', isBroken: false });
  setTimeout(answer, Number(ms));
});
