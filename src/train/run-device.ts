// The device as a run uses it: the thread with its Learner, opened for a pipeline, and what sinks may ask of it.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { transferables } from '../data/collate.js';
import type { ArrayBatch } from '../data/arrays.js';
import type { Processor } from '../data/processor.js';
import type { Batch } from '../data/types.js';
import { DeviceThread } from '../device/thread.js';
import { SluiceError } from '../errors.js';
import type { SavedPosition, StreamState } from './checkpoint.js';
import { CheckpointWriting, type PendingCheckpoint } from './checkpoint-writing.js';
import type { CheckpointWriterApi } from './checkpoint-worker.js';
import type { CheckpointEvent, CheckpointFailedEvent } from './events.js';
import type { Warning } from './dynamics-warnings.js';
import { guestOf, guestSpec } from './guest.js';
import { guestThread, guestWriter } from './guest-device.js';
import type { LearnerFacts, LearnerSpec } from './learner.js';
import type { Pipeline } from './pipeline.js';
import type { SinkDevice } from './sink.js';
import type { WriteOptions } from './snapshot.js';
import type { DeviceApi } from './worker.js';

/** How long a stopped run waits for a model that is still being loaded: it has learnt nothing yet. */
const LOADING_GRACE_MS = 5000;

export interface RunDeviceOptions {
  readonly outDir: string;
  readonly processor: Processor;
  /** Keeps what this machine reaches, for later runs. */
  readonly cacheFolder?: string | undefined;
  readonly onCheckpoint: (event: CheckpointEvent | CheckpointFailedEvent) => void;
}

export class RunDevice implements SinkDevice {
  readonly thread: Pick<DeviceThread<DeviceApi>, 'call' | 'terminate'>;
  readonly #guest: ReturnType<typeof guestThread> | undefined;
  readonly #options: RunDeviceOptions;
  readonly #writing: CheckpointWriting;
  #snapshotBytes = 0;
  #stream: () => StreamState = () => ({ stream: undefined, plan: undefined });

  constructor(pipeline: Pipeline, options: RunDeviceOptions) {
    this.#options = options;
    const guest = guestOf(pipeline);
    this.#guest = guest && guestThread(guest, guestSpec(pipeline));
    // A guest answers in its own way, and is never asked to generate.
    this.thread =
      this.#guest ??
      new DeviceThread<DeviceApi>(workerEntry('worker'), specOf(pipeline, options.cacheFolder));
    this.#writing = new CheckpointWriting({
      outDir: options.outDir,
      device: this.thread,
      writer: () =>
        guest ? guestWriter() : new DeviceThread<CheckpointWriterApi>(workerEntry('checkpoint-worker')),
      onEvent: options.onCheckpoint,
    });
  }

  /** The step of the newest complete checkpoint of this run, or of the one that it continues. */
  get savedStep(): number | undefined {
    return this.#writing.savedStep;
  }

  get snapshotBytes(): number {
    return this.#snapshotBytes;
  }

  /** The most bytes that were copied for a checkpoint. */
  get peakCheckpointBytes(): number {
    return this.#writing.peakBytes;
  }

  /** Loads or draws the model. @throws the signal's reason when it is aborted and the model is not there soon after */
  async open(signal: AbortSignal): Promise<LearnerFacts> {
    const opening = this.thread.call('open', []);
    opening.catch(() => undefined);
    const impatient = new Promise<never>((_, reject) => {
      const onAbort = async () => {
        await delay(LOADING_GRACE_MS, undefined, { ref: false });
        reject(signal.reason as Error);
      };
      if (signal.aborted) void onAbort();
      else signal.addEventListener('abort', () => void onAbort(), { once: true });
    });
    const { snapshotBytes, ...facts } = await Promise.race([opening, impatient]);
    this.#snapshotBytes = snapshotBytes;
    return facts;
  }

  /** After the last step: warnings that waited for more of them. */
  async finish(): Promise<Warning[]> {
    return this.thread.call('finish', []);
  }

  /** @param stream the training's stream as it stands behind the last update, asked for at each checkpoint */
  follow(stream: () => StreamState): void {
    this.#stream = stream;
  }

  async resume(folder: string): Promise<SavedPosition> {
    const position = await this.thread.call('load', [folder]);
    this.#writing.savedStep = position.step;
    return position;
  }

  async generate(
    batch: Batch,
    { maxNewTokens, signal }: { maxNewTokens: number; signal?: AbortSignal },
  ): Promise<number[][]> {
    const { targets: _targets, ...sent } = batch;
    const eosTokenIds = [...this.#options.processor.eosTokenIds];
    return this.thread.call('generate', [sent, { maxNewTokens, eosTokenIds }], {
      transfer: transferables(sent),
      ...(signal && { signal }),
    });
  }

  async answer(
    batch: Batch,
    { maxNewTokens, signal }: { maxNewTokens: number; signal?: AbortSignal },
  ): Promise<string[]> {
    if (this.#guest)
      return this.#guest.call('answer', [batch as unknown as ArrayBatch], { ...(signal && { signal }) });
    const rows = await this.generate(batch, { maxNewTokens, ...(signal && { signal }) });
    return rows.map((tokens) => this.#options.processor.decode(tokens, { skipSpecialTokens: true }));
  }

  async checkpoint(
    options: WriteOptions | (() => WriteOptions) = {},
  ): Promise<{ step: number; path: string }> {
    const { step, path, written } = await this.beginCheckpoint(options);
    await written;
    return { step, path };
  }

  beginCheckpoint(options: WriteOptions | (() => WriteOptions) = {}): Promise<PendingCheckpoint> {
    return this.#writing.begin(this.#stream, typeof options === 'function' ? options : () => options);
  }

  /** Writes a model of the averages of the weights, in place of the weights. @param folder of its own */
  writeAverage(folder: string): Promise<void> {
    return this.thread.call('writeAverage', [folder]);
  }

  settleCheckpoints(step: number, options: WriteOptions): Promise<void> {
    return this.#writing.settle(step, options);
  }

  /** Resolves when no checkpoint is being written. */
  idle(): Promise<void> {
    return this.#writing.idle();
  }

  /** Ends the threads, once what is being written is written. */
  async close(): Promise<void> {
    await this.#writing.close();
    await this.thread.terminate();
  }
}

function specOf({ model, step, seed, threads }: Pipeline, cacheFolder: string | undefined): LearnerSpec {
  return {
    model: plain(model),
    ...(step && { step: plain(step) }),
    seed,
    ...(threads !== undefined && { threads }),
    ...(cacheFolder !== undefined && { peakFile: join(cacheFolder, 'peak.json') }),
  };
}

/** Without the parts' hidden definitions, which cannot cross to another thread. */
function plain<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

/** Workers run compiled code: from a checkout's sources too, the entry is the one in dist. */
function workerEntry(name: string): URL {
  const here = new URL(`./${name}.js`, import.meta.url);
  if (!import.meta.url.endsWith('.ts')) return here;
  const built = new URL(`../../dist/train/${name}.js`, import.meta.url);
  if (existsSync(built)) return built;
  throw new SluiceError({
    where: 'device thread',
    expected: `the compiled ${name} in dist`,
    received: 'none',
    remedy: 'run node build.js',
  });
}
