// Stall blame: while the consumer waits, exactly one sample blocks it, the lowest not yet delivered; the wait is charged
// to the stage that holds that sample. A sample that waits for later ones (an open batch) blocks nobody: then it is the
// next lowest, and the source when there is none.

import type { Origin, WaitShare } from './types.js';

interface Suspect {
  readonly stage: string;
  readonly origin: Origin;
}

/** Rows that a run remembers for what they cost it. */
const NUM_SLOWEST = 10;

export class Blame {
  waiting = false;
  /** Milliseconds of all waits. */
  totalMs = 0;
  /** The same by stage. */
  readonly totals: Record<string, number> = {};
  /** The longest waits for one row in one stage, longest first. */
  readonly slowest: WaitShare[] = [];
  private begun = 0;
  private since = 0;
  private stage = '';
  /** Of the present wait, what the present stage and row have cost so far. */
  private suspectMs = 0;
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
    this.begun = this.since = this.now();
    this.suspect(suspect);
  }

  /** What the consumer waits for at this moment, and for how long it has waited by now; undefined while it is busy. */
  present(): WaitShare | undefined {
    if (!this.waiting) return undefined;
    const { stage, origin } = this;
    return { stage, ms: this.now() - this.begun, ...(origin && { origin }) };
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
    this.remember();
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
    const stage = suspect?.stage ?? this.source;
    const origin = suspect?.origin;
    if (stage === this.stage && origin === this.origin) return;
    this.remember();
    this.stage = stage;
    this.origin = origin;
  }

  /** Enters the wait for the present stage and row into `slowest`, where it is long enough. */
  private remember(): void {
    const { stage, origin, suspectMs: ms, slowest } = this;
    this.suspectMs = 0;
    const last = slowest[NUM_SLOWEST - 1];
    if (ms <= 0 || (last !== undefined && ms <= last.ms)) return;
    const at = slowest.findIndex((other) => other.ms < ms);
    slowest.splice(at < 0 ? slowest.length : at, 0, { stage, ms, ...(origin && { origin }) });
    slowest.length = Math.min(slowest.length, NUM_SLOWEST);
  }

  private charge(): void {
    const now = this.now();
    const ms = now - this.since;
    this.since = now;
    if (ms <= 0) return;
    this.suspectMs += ms;
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
