// Stall blame: while the consumer waits, exactly one sample blocks it, the lowest not yet delivered; the wait is charged
// to the stage that holds that sample. A sample that waits for later ones (an open batch) blocks nobody: then it is the
// next lowest, and the source when there is none.

import type { Origin, WaitShare } from './types.js';

interface Suspect {
  readonly stage: string;
  readonly origin: Origin;
}

export class Blame {
  waiting = false;
  /** Milliseconds of all waits. */
  totalMs = 0;
  /** The same by stage. */
  readonly totals: Record<string, number> = {};
  private since = 0;
  private stage = '';
  private origin: Origin | undefined;
  private shares = new Map<string, { ms: number; origin: Origin | undefined; longest: number }>();

  /** @param source blamed while no sample is on its way
   *  @param now milliseconds */
  constructor(
    private readonly source: string,
    private readonly now: () => number,
  ) {}

  /** The consumer waits from now on. */
  begin(suspect: Suspect | undefined): void {
    this.waiting = true;
    this.since = this.now();
    this.suspect(suspect);
  }

  /** Another sample, or the same in another stage, blocks the consumer from now on. */
  look(suspect: Suspect | undefined): void {
    if (!this.waiting) return;
    this.charge();
    this.suspect(suspect);
  }

  /** The wait is over.
   *  @returns its length, and a share for each stage with the row that cost it most */
  end(): { waitMs: number; waits: WaitShare[] } {
    if (!this.waiting) return { waitMs: 0, waits: [] };
    this.charge();
    this.waiting = false;
    const waits: WaitShare[] = [];
    let waitMs = 0;
    for (const [stage, { ms, origin }] of this.shares) {
      waits.push(origin === undefined ? { stage, ms } : { stage, ms, origin });
      this.totals[stage] = (this.totals[stage] ?? 0) + ms;
      waitMs += ms;
    }
    this.totalMs += waitMs;
    this.shares.clear();
    return { waitMs, waits };
  }

  private suspect(suspect: Suspect | undefined): void {
    this.stage = suspect?.stage ?? this.source;
    this.origin = suspect?.origin;
  }

  private charge(): void {
    const now = this.now();
    const ms = now - this.since;
    this.since = now;
    if (ms <= 0) return;
    const share = this.shares.get(this.stage);
    if (share === undefined) {
      this.shares.set(this.stage, { ms, origin: this.origin, longest: ms });
      return;
    }
    share.ms += ms;
    if (ms > share.longest) {
      share.longest = ms;
      share.origin = this.origin;
    }
  }
}
