// A thread of the decoding pool: takes a clip, asks for its bytes, answers with its samples.

import { parentPort } from 'node:worker_threads';
import { AudioError } from '../errors.js';
import { decodeClip, DecoderBroken } from './decode-clip.js';
import { NeedsFfmpeg } from './faults.js';
import type { FromThread, ToThread } from './messages.js';
import { type Source, sourceOf } from './source.js';

const port = parentPort;
if (!port) throw new AudioError('audio worker: expected to run in a worker thread; call decodeAudio');

// mpg123's wrapper tells an error here, and then asks for the next frame for ever.
console.error = (...said: unknown[]): never => {
  throw new Error(said.join(' '));
};

let takePiece: ((piece: Uint8Array) => void) | undefined;

const asked = (length: number): Source => ({
  length,
  read: (offset, count) => {
    const there = Math.max(0, Math.min(count, length - offset));
    if (there === 0) return Promise.resolve(new Uint8Array(0));
    return new Promise((resolve) => {
      takePiece = resolve;
      post({ read: { offset, length: there } });
    });
  },
});

port.on('message', (message: ToThread) => {
  if ('piece' in message) return takePiece?.(message.piece);
  const { clip, length, bytes } = message;
  decodeClip(bytes ? sourceOf(bytes) : asked(length), clip).then(
    (decoded) => post({ decoded }, [decoded.data.buffer as ArrayBuffer]),
    (error: unknown) => post(failure(error)),
  );
});

function post(message: FromThread, transfer: readonly ArrayBuffer[] = []): void {
  port!.postMessage(message, transfer);
}

function failure(error: unknown): FromThread {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  return {
    failed: message,
    stack,
    isBroken: error instanceof DecoderBroken || !(error instanceof AudioError),
    ...(error instanceof NeedsFfmpeg && { ffmpeg: { demuxer: error.demuxer, found: error.found } }),
  };
}
