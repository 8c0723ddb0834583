// What a run tells: plain objects, one a line under `--json` and in metrics.jsonl.

import type { Origin } from '../data/types.js';
import type { WaitShare } from '../flow/index.js';
import type { StepMeasures } from './dynamics.js';
import type { Warning } from './dynamics-warnings.js';

/** One optimizer step, after its update: a line of metrics.jsonl. Its fields, each explained below or in `StepMeasures`:
 *
 *  what was learnt  `step`, `loss` and `numLabels`; `skipped` micro-batches without labels; `lr`, the rate that parameters
 *                   of no group of their own have
 *  gradients        `gradNorm` of all, and `gradNorms` by part of the model, before clipping; `clipped` and `clippedShare`
 *  updates          `updateRatios`, update over weights by part, at the first step and every tenth
 *  data             `tokens`, `samples`, `images`, `clips`
 *  time             `stepMs` and `waitMs`, `tokensPerSecond`; host-side `waits` by stage and the `slowest` row
 *  machine          `memory`, `flops` and `mfu` */
export interface StepEvent extends Partial<StepMeasures> {
  readonly event: 'step';
  /** From 1. */
  readonly step: number;
  /** Mean loss over the labelled tokens of the step, nats. */
  readonly loss: number;
  readonly numLabels: number;
  /** Global gradient norm before clipping. */
  readonly gradNorm: number;
  /** Whether the gradient was scaled down; their share over the steps says whether clipping is the rule. */
  readonly clipped: boolean;
  /** Micro-batches of the step in which every label is masked: they taught nothing. */
  readonly skipped: number;
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
  /** `tokens` over both times. */
  readonly tokensPerSecond?: number;
  /** Host-side waiting by the stage to blame, ms. */
  readonly waits: Readonly<Record<string, number>>;
  /** The row that was waited for longest, where one was. */
  readonly slowest?: RowWait;
}

/** A wait for one row in one stage. */
export interface RowWait {
  /** Missing while no sample was on its way: the source had none. */
  readonly row?: string;
  readonly stage: string;
  readonly ms: number;
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
  /** 'train', or the evaluation's name. */
  readonly stream: string;
  /** The number of its item in the stream, from 0, over epochs. A run that is continued tells again what its checkpoint had
   *  not come to: with the same number. */
  readonly item: number;
  /** Its number among the samples that were made of the item, from 1; 0 before it had one. */
  readonly part: number;
  /** The step that the evaluation followed. */
  readonly step?: number;
}

/** A sink, or a tee's, failed and gets no more: it is declared as one that the run can do without. */
export interface DetachEvent {
  readonly event: 'detach';
  readonly sink: string;
  readonly error: string;
  /** The row that a tee's sink failed at. */
  readonly row?: string;
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

/** Training goes on, but not as it should; each kind is told once. */
export interface WarningEvent extends Warning {
  readonly event: 'warning';
  /** The step after which it was seen; 0 before the first. */
  readonly step: number;
}

/** What is trained, before the first step. */
export interface ModelEvent {
  readonly event: 'model';
  readonly numParameters: number;
  readonly numTrainable: number;
  /** What the loss caps logits at, of config.json; missing where it does not. */
  readonly softcap?: number;
  /** Floating point operations a second of a matrix product on the run's device and dtype, as measured at the start:
   *  what `mfu` is a share of. */
  readonly peakFlops?: number;
}

/** The step waits for data for very long, and still does: what it waits for. */
export interface StallEvent extends RowWait {
  readonly event: 'stall';
}

/** A checkpoint that is complete on disk. */
export interface CheckpointEvent {
  readonly event: 'checkpoint';
  readonly step: number;
  readonly path: string;
  /** Copied in the host's memory while it was written; 0 where there was no room: then training waited instead. */
  readonly bytes: number;
  /** Time that the copy took, all that training was held back. */
  readonly copyMs: number;
  /** Time that writing took, beside training. */
  readonly writeMs: number;
  /** Time that training was held back since the checkpoint before was still being written, where that was long. */
  readonly waitMs?: number;
  /** Why an older one that was to go is still there, or best.json is not as it should be. */
  readonly fault?: string;
}

/** A checkpoint that could not be written. Those of before are intact, and the run goes on. */
export interface CheckpointFailedEvent {
  readonly event: 'checkpoint-failed';
  readonly step: number;
  /** Where it should have been. */
  readonly path: string;
  readonly error: string;
  /** The step of the newest that is complete. */
  readonly lastComplete?: number;
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
  /** The most bytes that were copied for a checkpoint at once, beside them. */
  readonly peakCheckpointBytes: number;
  /** The last step whose update was made. */
  readonly steps: number;
  /** Time during which the device had nothing to do. */
  readonly waitMs: number;
  /** The same by the stage to blame, ms. */
  readonly waits: Readonly<Record<string, number>>;
  /** The ten longest waits for one row in one stage, longest first. */
  readonly slowest: readonly RowWait[];
  /** What tuned itself, as it was at the end: how many samples a stage works on at once, and `poolBytes`. */
  readonly tuned: Readonly<Record<string, number>>;
  readonly seconds: number;
  /** Where they went. */
  readonly time: TimeAccount;
  /** How near the feed came to one that is never waited for; of a run that trained. */
  readonly feed?: FeedPace;
  /** `mfu` of this run's steps together. */
  readonly mfu?: number;
}

export interface FeedPace {
  /** Tokens of this run's steps over all its time but setup and sinks. */
  readonly tokensPerSecond: number;
  /** The same over its compute alone. */
  readonly withoutWaits: number;
  /** What `--ceiling` has measured over one cached batch, where it has been asked to in the same folder. */
  readonly ceiling?: number;
}

/** Where a run's time went, in milliseconds: the parts add up to all of it. */
export interface TimeAccount {
  /** Until the first sample is asked for: loading the model, checking the files. */
  readonly setup: number;
  /** Forward, backward and update. */
  readonly compute: number;
  /** For data. */
  readonly wait: number;
  /** Evaluations and checkpoints that a step was held back for, and those at the end. */
  readonly sinks: number;
  /** Messages between the threads, and the end of the stream. */
  readonly other: number;
}

export type RunEvent =
  | StepEvent
  | EvalEvent
  | AnswersEvent
  | QuarantineEvent
  | NoticeEvent
  | ModelEvent
  | WarningEvent
  | DetachEvent
  | StallEvent
  | CheckpointEvent
  | CheckpointFailedEvent
  | EndEvent;

/** A stretch of waiting, in words. */
export function rowWait({ stage, ms, origin }: WaitShare): RowWait {
  return { ...(origin && { row: rowName(origin) }), stage, ms };
}

/** 'train.parquet row group 0 row 17': a row as people and logs name it. */
export function rowName(origin: Origin): string {
  return `${origin.file} row group ${origin.rowGroup} row ${origin.row}`;
}
