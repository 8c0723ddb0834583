// What a plan tells: the object of `pipe plan --json`, and of `planPipeline`.

/** What a pipeline will do with its data. Keys stay as they are; counts are of samples unless they say otherwise. */
export interface StreamForecast {
  /** The pipeline's. */
  readonly name: string;
  /** null where nothing trains. */
  readonly training: TrainingForecast | null;
  /** Of every sink that evaluates. */
  readonly evaluations: readonly EvaluationForecast[];
}

/** One stream of batches. */
export interface FlowForecast {
  readonly batches: number;
  /** Samples in them. */
  readonly samples: number;
  /** Items of the source that they are made of, or would have been. */
  readonly items: number;
  readonly dropped: number;
  readonly quarantined: number;
  /** The first of those, with their reasons. */
  readonly quarantinedRows: readonly QuarantinedRow[];
  /** Real tokens. */
  readonly tokens: number;
  /** Positions of padding. */
  readonly paddedTokens: number;
  /** paddedTokens / (tokens + paddedTokens) */
  readonly paddingShare: number;
  /** Positions that the loss counts. */
  readonly labels: number;
  readonly images: number;
  readonly clips: number;
  /** Of sound that is heard. */
  readonly soundSeconds: number;
  /** Samples of which something is left out, such as the end of a long clip. */
  readonly cut: number;
  readonly longest: { readonly tokens: number; readonly row: string } | null;
  /** What each source of a mix gives; null without a mix. */
  readonly mix: readonly MixShare[] | null;
  /** The bound on the bytes of samples on their way. */
  readonly poolBytes: number;
  /** What it may grow to while the device waits; null where it is fixed. */
  readonly maxPoolBytes: number | null;
  /** The least that the pool must have for what stages hold while they wait for more, as far as is known beforehand. */
  readonly neededBytes: number;
  /** 'batch holds up to 32 items of up to 65536 bytes' */
  readonly holds: readonly string[];
  /** The most bytes at once where the device is the slower side, so that the pool does not grow: by the times of step and
   *  stages where they are given, else six times slower than the stages. */
  readonly peakBytes: number;
  /** In order, the source first, the device last. Their peaks are not at the same moment. */
  readonly stages: readonly StageForecast[];
  readonly scan: ScanReport;
  /** What people should know of how this was found out. */
  readonly notes: readonly string[];
}

export interface TrainingForecast extends FlowForecast {
  /** Updates of the model. */
  readonly steps: number;
  readonly maxSteps: number;
  /** Batches a step. */
  readonly accumulate: number;
  /** What ends it: step.maxSteps, or the source. */
  readonly endsBy: 'maxSteps' | 'source';
  /** The most that a checkpoint's copy takes in the host's memory while it is written; 0 without checkpoints, null where it
   *  is not known. */
  readonly checkpointBytes: number | null;
  /** peakBytes and checkpointBytes: the samples and the copy are there at once. */
  readonly wholePeakBytes: number;
  /** One time through the data; null where the training ends before that and it was not read on, or it never ends. */
  readonly epoch: EpochForecast | null;
  /** null without a time for the step. */
  readonly stalls: StallReport | null;
}

export interface EvaluationForecast extends FlowForecast {
  /** The evaluation's. */
  readonly name: string;
}

/** Counts of the first epoch. */
export interface EpochForecast {
  readonly items: number;
  readonly samples: number;
  readonly tokens: number;
  /** That begin in it. */
  readonly batches: number;
}

export interface QuarantinedRow {
  readonly row: string;
  readonly stage: string;
  readonly error: string;
}

export interface MixShare {
  readonly name: string;
  readonly weight: number;
  readonly items: number;
  /** Of all items. */
  readonly share: number;
}

export interface StageForecast {
  readonly name: string;
  readonly peakBytes: number;
}

/** How the samples became known. */
export interface ScanReport {
  /** Read from the data, from an earlier scan, or the beginning from that and the rest from the data. */
  readonly from: 'data' | 'cache' | 'both';
  /** 'headers': corrupt media behind an intact header are not found; 'decoded': all were decoded. */
  readonly media: 'headers' | 'decoded';
  readonly samples: number;
  readonly ms: number;
  /** The file that holds it now; null where it is not kept. */
  readonly path: string | null;
}

/** Waits of the step for given times of the stages. */
export interface StallReport {
  readonly stepMs: number;
  /** Time to the first batch. */
  readonly firstBatchMs: number;
  /** The first wait after that. Batches count from 1. */
  readonly first: {
    readonly batch: number;
    readonly stage: string;
    readonly row: string;
    readonly ms: number;
  } | null;
  /** Share of the time that the step waits in the long run. */
  readonly waitShare: number;
  /** What limits the speed then: 'step', the slowest stage or the source, or 'pool'. */
  readonly limit: string;
}
