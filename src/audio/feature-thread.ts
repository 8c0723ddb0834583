// Features off the JavaScript thread. The thread starts with the first clip, ends when none has come for a while, and never
// keeps the process alive by itself. One that dies takes the clips with it that it was at, and no others.

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
  readonly clips: readonly DecodedAudio[];
  readonly settings: FeatureSettings;
  readonly resolve: (result: AudioFeatures) => void;
  readonly reject: (error: Error) => void;
}

/** `audioFeatures` on a thread: the same features, the same errors. The clips are copied, as far as they are heard.
 *  @throws {AudioError} as `audioFeatures`; also when the thread stops */
export async function audioFeaturesInThread(
  clips: readonly DecodedAudio[],
  settings: FeatureSettings,
): Promise<AudioFeatures> {
  return thread.features(clips, settings);
}

export class FeatureThread {
  readonly #entry: () => URL;
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | undefined;
  #nextId = 0;
  #idle: NodeJS.Timeout | undefined;

  /** @param entry of the module that the thread runs, asked for when it starts */
  constructor(entry: () => URL) {
    this.#entry = entry;
  }

  /** @throws {AudioError} as `audioFeaturesInThread` */
  async features(clips: readonly DecodedAudio[], settings: FeatureSettings): Promise<AudioFeatures> {
    const heard = heardIn(clips, settings); // what is wrong with them is told at once
    return new Promise<AudioFeatures>((resolve, reject) => {
      const id = this.#nextId++;
      this.#waiting.set(id, { clips, settings, resolve, reject });
      this.#send(id, heard, settings);
    });
  }

  #send(id: number, clips: readonly DecodedAudio[], settings: FeatureSettings): void {
    this.#worker ??= this.#started();
    clearTimeout(this.#idle);
    this.#worker.ref();
    const request: FeatureRequest = { id, clips, settings };
    this.#worker.postMessage(
      request,
      clips.map(({ data }) => data.buffer as ArrayBuffer),
    );
  }

  #started(): Worker {
    const worker = new Worker(this.#entry(), {
      name: 'sluice audio features',
      // Not the program's own flags: some are for its main module alone.
      execArgv: [],
    });
    worker.on('message', (answer: FeatureAnswer) => this.#take(answer));
    worker.on('messageerror', (error) => this.#end(worker, error));
    worker.on('error', (error) => this.#end(worker, error));
    worker.on('exit', (code) => this.#end(worker, new Error(`it ended with code ${code}`)));
    return worker;
  }

  #take(answer: FeatureAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if ('failed' in answer) waiting?.reject(new AudioError(answer.failed));
    else waiting?.resolve(answer.result);
    const worker = this.#worker;
    if (this.#waiting.size > 0 || !worker) return;
    worker.unref();
    this.#idle = setTimeout(() => this.#end(worker, new Error('idle')), IDLE_MS).unref();
  }

  /** Clips that come later get another thread, and so do those that waited for their turn. */
  #end(worker: Worker, cause: unknown): void {
    if (worker !== this.#worker) return;
    this.#worker = undefined;
    clearTimeout(this.#idle);
    void worker.terminate();
    // It answers in order: the first that waits is what it was at.
    const [culprit, ...others] = this.#waiting;
    if (!culprit) return;
    this.#waiting.delete(culprit[0]);
    culprit[1].reject(stopped(cause));
    for (const [id, { clips, settings }] of others) this.#send(id, heardIn(clips, settings), settings);
  }
}

const thread = new FeatureThread(() => compiledModule('feature-worker.js'));

/** Copies of the clips, as far as they are heard. */
function heardIn(clips: readonly DecodedAudio[], settings: FeatureSettings): DecodedAudio[] {
  return clips.map((clip, index) => heardOf(clip, `clip ${index}`, settings));
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
