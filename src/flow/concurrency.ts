// How many samples a stage works on at once.

/** A number that may change while a run goes on, up to `most`; fixed where it begins with that. */
export class Concurrency {
  /** Samples that wait to be started; the stage keeps it up to date. */
  backlog = 0;
  /** Starts what waits, when there is room for more; the stage sets it. */
  onGrown: () => void = () => {};
  #value: number;

  constructor(
    /** The stage's. */
    readonly name: string,
    start: number,
    /** It is never more. */
    readonly most: number,
  ) {
    this.#value = Math.min(start, most);
  }

  get value(): number {
    return this.#value;
  }

  set value(value: number) {
    this.#value = Math.max(1, Math.min(value, this.most));
    this.onGrown();
  }
}
