/** What tells that a file is still the one that was opened. */
export interface Stamp {
  readonly size: number;
  /** 0 where a server does not say. */
  readonly mtimeMs: number;
  /** Of a server that tells it. */
  readonly etag?: string;
}
