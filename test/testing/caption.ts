// The README's operator.

import { type Observable, filter, mergeMap, pipe, retry, timeout } from 'rxjs';
import { lift } from 'sluice';

/** Asks a service for the caption of a picture by its address. Whoever gets none in three tries is quarantined, an empty one is dropped. */
export function caption(ask: (picture: string) => Observable<string>) {
  const once = (picture: string) => ask(picture).pipe(timeout(5));
  return lift(
    pipe(
      mergeMap(once),
      retry({ count: 2, delay: 1 }),
      filter((words) => words !== ''),
    ),
    { name: 'caption', concurrency: 2 },
  );
}
