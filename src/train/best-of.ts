// Which steps of a run were the best by a metric. What counts as improved is said when an evaluation is told; that its
// checkpoint is there is the checkpoint sink's care.

import {
  checkpointFolder,
  listCheckpoints,
  ranked,
  readBest,
  readState,
  type BestCheckpoints,
  type BestMode,
} from '../checkpoint/index.js';
import type { EvalEvent } from './events.js';

export interface BestOptions {
  /** 'evaluation/score' */
  readonly metric: string;
  readonly mode: BestMode;
  /** How many. */
  readonly keep: number;
}

/** The best `keep` steps; ties keep the earlier one, and what is no finite number is never best. */
export class BestOf {
  readonly #options: BestOptions;
  #best: BestCheckpoints['best'] = [];
  /** An evaluation that is among the best, if the checkpoint of its step comes to be. */
  #candidate: { readonly step: number; readonly value: number } | undefined;

  /** The best before the checkpoint that is being written. */
  #before: BestCheckpoints['best'] = [];
  #isGiven = false;

  constructor(options: BestOptions) {
    this.#options = options;
  }

  /** Takes up where a checkpoint stood. Others than complete ones up to it do not count.
   *  @throws {CheckpointError | ConfigError} when best.json is malformed */
  restore(outDir: string, step: number): void {
    const { metric, mode, keep } = this.#options;
    const complete = new Set(listCheckpoints(outDir).map((checkpoint) => checkpoint.step));
    // best.json knows of evaluations that came after their step's checkpoint, and is behind where a run was killed.
    const found = [readState(checkpointFolder(outDir, step)).best, readBest(outDir)].flatMap((best) =>
      best?.metric === metric && best.mode === mode ? best.best : [],
    );
    const newest = new Map(found.map((entry) => [entry.step, entry]));
    const kept = [...newest.values()].filter((entry) => entry.step <= step && complete.has(entry.step));
    this.#best = ranked(kept, mode, keep);
  }

  take({ step, name, scores }: EvalEvent): void {
    const { metric, mode, keep } = this.#options;
    const found = Object.entries(scores).find(([score]) => `${name}/${score}` === metric);
    if (!found) return;
    this.#isGiven = true;
    if (!Number.isFinite(found[1])) return;
    const candidate = { step, value: found[1] };
    const others = this.#best.filter((entry) => entry.step !== step);
    const isAmong = ranked([...others, candidate], mode, keep).some((entry) => entry.step === step);
    // The same step evaluated again, on more samples: the later value stands.
    if (others.length < this.#best.length) this.#best = others;
    this.#candidate = isAmong ? candidate : undefined;
  }

  /** Whether the newest evaluation, of this step, is among the best. */
  isBest(step: number): boolean {
    return this.#candidate?.step === step;
  }

  /** The best with this step, whose checkpoint is being written. */
  upTo(step: number): BestCheckpoints {
    const { metric, mode, keep } = this.#options;
    this.#before = this.#best;
    if (this.#candidate?.step === step) {
      this.#best = ranked([...this.#best, this.#candidate], mode, keep);
      this.#candidate = undefined;
    }
    return { metric, mode, best: this.#best };
  }

  /** Takes out a step whose checkpoint failed: what it had put out is among the best again. */
  forget(step: number): void {
    const { mode, keep } = this.#options;
    const others = [...this.#best, ...this.#before].filter((entry) => entry.step !== step);
    this.#best = ranked(others, mode, keep);
  }

  /** Whether any evaluation gave the metric. */
  get isGiven(): boolean {
    return this.#isGiven;
  }

  /** A step before this one whose evaluation was among the best, and that has no checkpoint; said once. */
  missedBefore(step: number): number | undefined {
    if (this.#candidate === undefined || this.#candidate.step >= step) return undefined;
    const missed = this.#candidate.step;
    this.#candidate = undefined;
    return missed;
  }
}
