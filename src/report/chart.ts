// A chart of the report, as the page's script takes it.

/** Data: x and one array a series, as uPlot takes them. */
export interface Chart {
  readonly title: string;
  readonly unit: string;
  readonly log?: boolean;
  /** Shares, drawn from 0 to 1. */
  readonly share?: boolean;
  /** The page's element that it is drawn in: 'charts' where it is left out. */
  readonly place?: 'first';
  readonly labels: readonly string[];
  readonly data: readonly (readonly (number | null)[])[];
}
