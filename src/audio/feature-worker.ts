// A thread that computes features: takes clips, answers with their features or with an error's message.

import { parentPort } from 'node:worker_threads';
import { AudioError } from '../errors.js';
import type { FeatureSettings } from './feature-settings.js';
import { audioFeatures, type AudioFeatures } from './features.js';
import type { DecodedAudio } from './types.js';

/** To the thread. */
export interface FeatureRequest {
  readonly id: number;
  readonly clips: readonly DecodedAudio[];
  readonly settings: FeatureSettings;
}

/** From it, in the order of the requests. */
export type FeatureAnswer =
  { readonly id: number; readonly result: AudioFeatures } | { readonly id: number; readonly failed: string };

const port = parentPort;
if (!port) {
  throw new AudioError(
    'audio feature worker: expected to run in a worker thread; call audioFeaturesInThread',
  );
}

port.on('message', ({ id, clips, settings }: FeatureRequest) => {
  try {
    const result = audioFeatures(clips, settings);
    const { features, mask } = result;
    post({ id, result }, [features.data.buffer as ArrayBuffer, mask.data.buffer as ArrayBuffer]);
  } catch (error) {
    post({ id, failed: error instanceof Error ? error.message : String(error) });
  }
});

function post(answer: FeatureAnswer, transfer: readonly ArrayBuffer[] = []): void {
  port!.postMessage(answer, transfer);
}
