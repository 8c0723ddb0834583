// The samples of a stream in order: as far as an earlier scan knows them from that, then from the data.

import type { ScanCache } from './plan-cache.js';
import { ScanColumns, type SampleFacts } from './plan-columns.js';
import type { Replayed } from './plan-replay.js';
import { type Scanned, type ScanOptions, scan } from './plan-scan.js';

export interface KnownSamplesOptions {
  readonly scan: ScanOptions;
  /** None where scans are not kept. */
  readonly cache: ScanCache | undefined;
  /** Whether batches need no more of a sample than the columns hold. */
  readonly replayable: boolean;
}

export class KnownSamples {
  readonly notes: string[] = [];
  readonly #options: KnownSamplesOptions;
  #columns: ScanColumns;
  #complete = false;
  #numKept = 0;
  #path: string | undefined;

  constructor(options: KnownSamplesOptions) {
    this.#options = options;
    this.#columns = new ScanColumns(options.scan.stages.length);
  }

  /** Looks for an earlier scan. */
  async open(): Promise<void> {
    const {
      cache,
      scan: { stages },
    } = this.#options;
    const kept = await cache?.read(stages.length);
    if (!kept) return;
    this.#columns = kept.columns;
    this.#complete = kept.complete;
    this.#numKept = kept.columns.length;
    this.#path = kept.path;
  }

  /** Samples that are known by now. */
  get length(): number {
    return this.#columns.length;
  }

  get from(): 'data' | 'cache' | 'both' {
    if (this.#path === undefined) return 'data';
    return this.#columns.length > this.#numKept ? 'both' : 'cache';
  }

  /** Nothing comes after those that are known. */
  get complete(): boolean {
    return this.#complete;
  }

  /** Number of the last one that was made, -1 where none was. */
  get lastMade(): number {
    let index = this.#columns.length - 1;
    while (index >= 0 && this.#columns.at(index).outcome !== 'made') index -= 1;
    return index;
  }

  /** Each sample once; of those that are known only, no more than what was read by now.
   *  @param came is told of each */
  async *each(
    which: 'known' | 'all',
    came: (sample: SampleFacts) => void,
  ): AsyncGenerator<Replayed, void, undefined> {
    const { length } = this.#columns;
    for (let i = 0; i < length; i++) yield this.#replayed(i, undefined, came);
    if (this.#complete || which === 'known') return;
    let number = 0;
    for await (const sample of scan(this.#options.scan)) {
      // What is known is read over: sources are read from their beginning.
      if (number++ < length) continue;
      this.#columns.push(sample);
      yield this.#replayed(this.#columns.length - 1, sample, came);
    }
    this.#complete = true;
  }

  /** Keeps what was read. @returns the file that holds it */
  async keep(): Promise<string | undefined> {
    const { cache } = this.#options;
    if (!cache || this.from === 'cache') return this.#path;
    const path = await cache.write({ columns: this.#columns, complete: this.#complete });
    if (path === undefined)
      this.notes.push('the scan is not kept: it is too large, or no folder for it can be written');
    return path;
  }

  #replayed(index: number, live: Scanned | undefined, came: (sample: SampleFacts) => void): Replayed {
    const facts = this.#columns.at(index);
    came(facts);
    if (!this.#options.replayable) return { ...facts, value: live?.value };
    return Object.defineProperty({ ...facts, value: undefined }, 'value', { get: facts.example });
  }
}
