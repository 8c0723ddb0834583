// Checkpoints written in the background: the device thread copies what changes and trains on, another thread writes. One
// copy at a time is in memory: a checkpoint that is due before the one before is written waits for it.

import { freemem } from 'node:os';
import type { DeviceThread } from '../device/thread.js';
import { CheckpointError, messageOf } from '../errors.js';
import { checkpointFolder } from '../checkpoint/index.js';
import type { CheckpointWriterApi } from './checkpoint-worker.js';
import type { StreamState } from './checkpoint.js';
import type { CheckpointEvent, CheckpointFailedEvent } from './events.js';
import type { Snapshot, WriteOptions } from './snapshot.js';
import type { DeviceApi } from './worker.js';

/** A checkpoint that is being written. */
export interface PendingCheckpoint {
  readonly step: number;
  /** Where it is going to be. */
  readonly path: string;
  /** Resolves when it is complete on disk.
   *  @throws {CheckpointError} when it could not be written; those of before are intact */
  readonly written: Promise<void>;
}

export interface CheckpointWritingOptions {
  readonly outDir: string;
  readonly device: Pick<DeviceThread<DeviceApi>, 'call'>;
  /** Starts the thread that writes; asked for again when it has died. */
  readonly writer: () => Writer;
  readonly onEvent: (event: CheckpointEvent | CheckpointFailedEvent) => void;
}

export type Writer = Pick<DeviceThread<CheckpointWriterApi>, 'call' | 'terminate'>;

/** A wait for the checkpoint before that is worth a word. */
const LONG_WAIT_MS = 1000;

export class CheckpointWriting {
  readonly #options: CheckpointWritingOptions;
  #writer: Writer | undefined;
  /** The checkpoint that is being written; never rejects. */
  #inFlight: Promise<unknown> = Promise.resolve();
  #savedStep: number | undefined;
  #peakBytes = 0;

  constructor(options: CheckpointWritingOptions) {
    this.#options = options;
  }

  /** The step of the newest complete checkpoint of this run, or of the one that it continues. */
  get savedStep(): number | undefined {
    return this.#savedStep;
  }
  set savedStep(step: number | undefined) {
    this.#savedStep = step;
  }

  /** The most bytes of a copy so far. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  /** Takes the state behind the last update; nothing must train until this resolves, which is when it is copied.
   *  Where the host has no memory for a copy, that is when it is written. */
  async begin(stream: () => StreamState, ask: () => WriteOptions): Promise<PendingCheckpoint> {
    const { device, outDir } = this.#options;
    const askedAt = performance.now();
    await this.#inFlight;
    const waitMs = performance.now() - askedAt;
    const options = ask();
    const snapshot = await device.call('snapshot', [stream(), options.best]);
    this.#peakBytes = Math.max(this.#peakBytes, snapshot.bytes);
    const { step } = snapshot.state;
    const written = this.#write(snapshot, options, waitMs);
    this.#inFlight = written.catch(() => undefined);
    if (snapshot.bytes === 0) {
      await this.#inFlight;
      await device.call('waitFromNow', []);
    }
    return { step, path: checkpointFolder(outDir, step), written };
  }

  /** Of a step whose checkpoint is complete: writes best.json, and removes what is not to stay.
   *  @throws {CheckpointError} when that cannot be done */
  async settle(step: number, options: WriteOptions): Promise<void> {
    await this.#inFlight;
    const fault = await this.#thread().call('settle', [this.#options.outDir, step, options]);
    if (fault !== undefined) throw new CheckpointError(fault);
  }

  /** Resolves when nothing is being written. */
  async idle(): Promise<void> {
    await this.#inFlight;
  }

  async close(): Promise<void> {
    await this.#inFlight;
    await this.#writer?.terminate();
    this.#writer = undefined;
  }

  async #write(snapshot: Snapshot, options: WriteOptions, waitMs: number): Promise<void> {
    const { outDir, device, onEvent } = this.#options;
    const { bytes, copyMs, state } = snapshot;
    const { step } = state;
    const writer = this.#thread();
    const written = await writer.call('write', [outDir, snapshot, options]).catch((error: unknown) => {
      const fault = error instanceof CheckpointError ? error : failed(checkpointFolder(outDir, step), error);
      // A thread that has died has taken nothing along, and writes nothing more.
      if (fault !== error) void this.#replace(writer);
      device.call('forget', [snapshot]).catch(() => undefined);
      onEvent({
        event: 'checkpoint-failed',
        step,
        path: checkpointFolder(outDir, step),
        error: messageOf(fault),
        ...(this.#savedStep !== undefined && { lastComplete: this.#savedStep }),
      });
      throw fault;
    });
    this.#savedStep = step;
    // Kept for the next, unless the host may need it before.
    if (bytes > 0 && freemem() < bytes) device.call('freeSnapshotMemory', []).catch(() => undefined);
    const { path, writeMs, fault } = written;
    onEvent({
      event: 'checkpoint',
      step,
      path,
      bytes,
      copyMs: rounded(copyMs),
      writeMs: rounded(writeMs),
      ...(waitMs >= LONG_WAIT_MS && { waitMs: rounded(waitMs) }),
      ...(fault !== undefined && { fault }),
    });
  }

  #thread(): Writer {
    return (this.#writer ??= this.#options.writer());
  }

  async #replace(writer: Writer): Promise<void> {
    if (this.#writer === writer) this.#writer = undefined;
    await writer.terminate().catch(() => undefined);
  }
}

function failed(path: string, cause: unknown): CheckpointError {
  return new CheckpointError(
    {
      where: path,
      expected: 'to write the checkpoint',
      received: messageOf(cause),
      remedy: 'see the cause; earlier checkpoints are untouched',
    },
    { cause },
  );
}

function rounded(ms: number): number {
  return Math.round(ms * 100) / 100;
}
