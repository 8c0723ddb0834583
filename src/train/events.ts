// What a run tells: plain objects, one a line under `--json` and in metrics.jsonl.

import type { Origin } from '../data/types.js';

/** One optimizer step, after its update. */
export interface StepEvent {
  readonly event: 'step';
  /** From 1. */
  readonly step: number;
  /** Mean loss over the labelled tokens of the step, nats. */
  readonly loss: number;
  readonly numLabels: number;
  /** Global gradient norm before clipping. */
  readonly gradNorm: number;
  readonly lr: number;
  /** Real (unpadded) tokens. */
  readonly tokens: number;
  readonly samples: number;
  readonly images: number;
  readonly clips: number;
  /** Time of forward, backward and update on the device. */
  readonly stepMs: number;
  /** Time that the device waited for this step's batches. */
  readonly waitMs: number;
  /** Host-side waiting by the stage to blame, ms. */
  readonly waits: Readonly<Record<string, number>>;
}

/** One evaluation. Scores are shares in [0, 1] unless their name says otherwise. */
export interface EvalEvent {
  readonly event: 'eval';
  readonly step: number;
  readonly name: string;
  readonly count: number;
  readonly scores: Readonly<Record<string, number>>;
}

/** One answer beside its reference, for people to look at. */
export interface SampleAnswer {
  readonly prompt: string;
  readonly reference: string;
  readonly answer: string;
  /** A data URL. */
  readonly picture?: string;
}

/** Answers of an evaluation; too big for a log, only reports take it. */
export interface AnswersEvent {
  readonly event: 'answers';
  readonly step: number;
  readonly name: string;
  readonly answers: readonly SampleAnswer[];
}

/** A sample that could not be used; the run went on. */
export interface QuarantineEvent {
  readonly event: 'quarantine';
  readonly row: string;
  readonly stage: string;
  readonly error: string;
}

/** A sample that was used, though not all of it. Of very many, the first few are told. */
export interface NoticeEvent {
  readonly event: 'notice';
  readonly row: string;
  readonly stage: string;
  /** What was left out: 'clip 0 lasts 35.0 s: only its first 30.0 s are heard'. */
  readonly message: string;
  /** This is the last of so many that are not told one by one. */
  readonly count?: number;
}

/** A checkpoint that is complete on disk. */
export interface CheckpointEvent {
  readonly event: 'checkpoint';
  readonly step: number;
  readonly path: string;
}

/** How a run ended: all done, stopped by a signal, or failed. */
export type Outcome = 'complete' | 'stopped' | 'failed';

/** The end of a run: every sample accounted for. */
export interface EndEvent {
  readonly event: 'end';
  readonly outcome: Outcome;
  /** Why it failed. */
  readonly error?: string;
  /** issued = trained + dropped + quarantined. What was on its way when a run was stopped is dropped. */
  readonly ledger: {
    readonly issued: number;
    readonly trained: number;
    readonly dropped: number;
    readonly quarantined: number;
  };
  /** The most bytes of samples that were on their way at once. */
  readonly peakBytes: number;
  /** The last step whose update was made. */
  readonly steps: number;
  /** Time during which the device had nothing to do. */
  readonly waitMs: number;
  readonly seconds: number;
}

export type RunEvent =
  StepEvent | EvalEvent | AnswersEvent | QuarantineEvent | NoticeEvent | CheckpointEvent | EndEvent;

/** 'train.parquet row group 0 row 17': a row as people and logs name it. */
export function rowName(origin: Origin): string {
  return `${origin.file} row group ${origin.rowGroup} row ${origin.row}`;
}
