// The counts of a plan: samples as the stream passes them, batches as they are made.

import type { Batch } from '../data/types.js';
import type { ConsumeContext, Origin } from '../flow/index.js';
import { rowName } from './events.js';
import type { SampleFacts } from './plan-columns.js';
import type { EpochForecast, QuarantinedRow } from './plan-types.js';

/** Rows that are told one by one. */
export const TOLD_ROWS = 100;

/** Sums over batches, and over the samples before them. */
export interface Totals {
  readonly batches: number;
  readonly samples: number;
  readonly items: number;
  readonly dropped: number;
  readonly quarantined: number;
  readonly tokens: number;
  readonly paddedTokens: number;
  readonly labels: number;
  readonly images: number;
  readonly clips: number;
  readonly heardFrames: number;
  readonly cut: number;
  readonly longest: { readonly tokens: number; readonly row: string } | null;
  /** Items by the number of a mix's source. */
  readonly mixed: readonly number[];
  /** Mean of the most that a sample weighs on its way, bytes. */
  readonly meanBytes: number;
}

export class Tally {
  /** Samples in each batch. */
  readonly batchSizes: number[] = [];
  /** Their rows, in order. */
  readonly origins: Origin[] = [];
  readonly quarantinedRows: QuarantinedRow[] = [];
  readonly #stageNames: readonly string[];
  readonly #keepsOrigins: boolean;
  /** Samples that came and are not counted yet. */
  #waiting: SampleFacts[] = [];
  #numPassed = 0;
  #lastItem = -1;
  #weight = 0;
  #weighed = 0;
  #counts = { samples: 0, items: 0, tokens: 0, paddedTokens: 0, labels: 0, images: 0, clips: 0 };
  #notices = { heardFrames: 0, cut: 0 };
  #settled = { dropped: 0, quarantined: 0 };
  #longest: Totals['longest'] = null;
  readonly #mixed: number[] = [];
  #firstEpoch: number | undefined;
  #epoch = { items: 0, samples: 0, tokens: 0, batches: 0 };
  #epochEnded = false;

  /** @param stageNames of the source, then of each stage before the batches
   *  @param keepsOrigins whether `origins` is wanted */
  constructor(stageNames: readonly string[], keepsOrigins: boolean) {
    this.#stageNames = stageNames;
    this.#keepsOrigins = keepsOrigins;
  }

  /** A sample has come. */
  came(sample: SampleFacts): void {
    this.#waiting.push(sample);
  }

  /** A batch has been made of samples that came. */
  add(batch: Batch, { origins, position }: Pick<ConsumeContext, 'origins' | 'position'>): void {
    const begins = this.#pass(position.item + 1);
    const [rows = 0, width = 0] = batch.inputIds.shape;
    const counts = this.#counts;
    counts.samples += origins.length;
    counts.tokens += batch.numTokens;
    counts.paddedTokens += rows * width - batch.numTokens;
    counts.labels += batch.numLabels;
    counts.images += batch.pixelValues?.shape[0] ?? 0;
    counts.clips += batch.inputFeatures?.shape[0] ?? 0;
    this.batchSizes.push(origins.length);
    if (this.#keepsOrigins) this.origins.push(...origins);
    if (begins === this.#firstEpoch) this.#epoch.batches += 1;
    this.#settled = { dropped: position.done.dropped, quarantined: position.done.quarantined };
  }

  /** A sample was quarantined by a stage from the batch on. */
  quarantined(origin: Origin, stage: string, error: string): void {
    this.#told({ row: rowName(origin), stage, error });
  }

  /** The stream has ended: what came after the last batch counts too. */
  ended({ dropped, quarantined }: { readonly dropped: number; readonly quarantined: number }): void {
    this.#pass(Infinity);
    this.#settled = { dropped, quarantined };
    this.#epochEnded = true;
  }

  /** Samples that are counted, those that were not made too. */
  get numPassed(): number {
    return this.#numPassed;
  }

  /** Whether all of the first epoch is counted. */
  get epochEnded(): boolean {
    return this.#epochEnded;
  }

  /** Whether the source tells its epochs. */
  get tellsEpochs(): boolean {
    return (this.#firstEpoch ?? -1) >= 0;
  }

  get epoch(): EpochForecast {
    return { ...this.#epoch };
  }

  totals(): Totals {
    return {
      ...this.#counts,
      ...this.#notices,
      ...this.#settled,
      batches: this.batchSizes.length,
      longest: this.#longest,
      mixed: [...this.#mixed],
      meanBytes: this.#weighed === 0 ? 0 : this.#weight / this.#weighed,
    };
  }

  /** Counts the samples before number `end`. @returns the epoch of the first that was made */
  #pass(end: number): number | undefined {
    let begins: number | undefined;
    const count = Math.min(end - this.#numPassed, this.#waiting.length);
    for (const sample of this.#waiting.splice(0, count)) {
      if (sample.outcome === 'made') begins ??= sample.epoch;
      this.#count(sample);
    }
    this.#numPassed += count;
    return begins;
  }

  #count(sample: SampleFacts): void {
    const { origin, item, epoch, mixed, outcome, weights, reserves, error = '' } = sample;
    this.#firstEpoch ??= epoch;
    const inEpoch = epoch === this.#firstEpoch;
    if (!inEpoch) this.#epochEnded = true;
    if (item !== this.#lastItem) {
      this.#counts.items += 1;
      if (mixed >= 0) this.#mixed[mixed] = (this.#mixed[mixed] ?? 0) + 1;
      if (inEpoch) this.#epoch.items += 1;
    }
    this.#lastItem = item;
    if (outcome === 'quarantined') {
      const stage = this.#stageNames[weights.length] ?? '';
      this.#told({ row: rowName(origin), stage, error });
    }
    if (outcome !== 'made') return;
    if (inEpoch) {
      this.#epoch.samples += 1;
      this.#epoch.tokens += sample.tokens;
    }
    this.#weight += Math.max(...weights, ...reserves);
    this.#weighed += 1;
    this.#notices.heardFrames += sample.heard;
    if (sample.notices > 0) this.#notices.cut += 1;
    if (sample.tokens > (this.#longest?.tokens ?? 0)) {
      this.#longest = { tokens: sample.tokens, row: rowName(origin) };
    }
  }

  #told(row: QuarantinedRow): void {
    if (this.quarantinedRows.length < TOLD_ROWS) this.quarantinedRows.push(row);
  }
}
