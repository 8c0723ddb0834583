// Features off the JavaScript thread. The thread starts with the first clip, ends when none has come for a while, and never
// keeps the process alive by itself.

import { Worker } from 'node:worker_threads';
import { AudioError, messageOf } from '../errors.js';
import { compiledModule } from './compiled.js';
import type { FeatureSettings } from './feature-settings.js';
import type { FeatureAnswer, FeatureRequest } from './feature-worker.js';
import { type AudioFeatures, heardOf } from './features.js';
import type { DecodedAudio } from './types.js';

/** After which a thread without work ends. */
const IDLE_MS = 5_000;

interface Waiting {
  readonly resolve: (result: AudioFeatures) => void;
  readonly reject: (error: Error) => void;
}

/** `audioFeatures` on a thread: the same features, the same errors. The clips are copied, as far as they are heard.
 *  @throws {AudioError} as `audioFeatures`; also when the thread stops */
export async function audioFeaturesInThread(
  clips: readonly DecodedAudio[],
  settings: FeatureSettings,
): Promise<AudioFeatures> {
  const heard = clips.map((clip, index) => heardOf(clip, `clip ${index}`, settings));
  current ??= new FeatureThread(() => (current = undefined));
  return current.features(heard, settings);
}

let current: FeatureThread | undefined;

class FeatureThread {
  readonly #worker = new Worker(compiledModule('feature-worker.js'), {
    name: 'sluice audio features',
    // Not the program's own flags: some are for its main module alone.
    execArgv: [],
  });
  readonly #waiting = new Map<number, Waiting>();
  readonly #onEnd: () => void;
  #nextId = 0;
  #idle: NodeJS.Timeout | undefined;
  #hasEnded = false;

  constructor(onEnd: () => void) {
    this.#onEnd = onEnd;
    this.#worker.on('message', (answer: FeatureAnswer) => this.#take(answer));
    this.#worker.on('messageerror', (error) => this.#end(error));
    this.#worker.on('error', (error) => this.#end(error));
    this.#worker.on('exit', (code) => this.#end(new Error(`it ended with code ${code}`)));
  }

  features(clips: readonly DecodedAudio[], settings: FeatureSettings): Promise<AudioFeatures> {
    const id = this.#nextId++;
    const request: FeatureRequest = { id, clips, settings };
    const answer = new Promise<AudioFeatures>((resolve, reject) =>
      this.#waiting.set(id, { resolve, reject }),
    );
    clearTimeout(this.#idle);
    this.#worker.ref();
    this.#worker.postMessage(
      request,
      clips.map(({ data }) => data.buffer as ArrayBuffer),
    );
    return answer;
  }

  #take(answer: FeatureAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if ('failed' in answer) waiting?.reject(new AudioError(answer.failed));
    else waiting?.resolve(answer.result);
    if (this.#waiting.size > 0) return;
    this.#worker.unref();
    this.#idle = setTimeout(() => this.#end(new Error('idle')), IDLE_MS).unref();
  }

  /** Clips that come later get another thread. */
  #end(cause: unknown): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearTimeout(this.#idle);
    this.#onEnd();
    for (const { reject } of this.#waiting.values()) reject(stopped(cause));
    this.#waiting.clear();
    void this.#worker.terminate();
  }
}

function stopped(cause: unknown): AudioError {
  return new AudioError(
    {
      where: 'audio features',
      expected: 'their thread to run until the end',
      received: messageOf(cause),
      remedy: 'see the cause; shorter clips, or fewer a sample, need less memory',
    },
    { cause },
  );
}
