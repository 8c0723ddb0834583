// The README's marble test, of the package as users import it.

import { NEVER, type Observable, map, of, timer } from 'rxjs';
import { it } from 'vitest';
import { testFlow } from 'sluice/testing';
import { caption } from './caption.js';

it('caption asks thrice, drops what has no caption, and quarantines what never answers', () => {
  const answers: Record<string, Observable<string>> = {
    a: timer(2).pipe(map(() => 'a cat')),
    b: of(''),
    c: NEVER,
    d: of('a dog'),
  };
  return testFlow({
    source: '   -a-b-c-d-|',
    values: { x: 'a cat', y: 'a dog' }, // other letters stand for themselves
    bytes: 10,
    poolBytes: 30,
    consumeMs: 3,
    stages: [caption((picture) => answers[picture]!)],
    expect: {
      pulls: '  ab-c-d-|',
      values: ' ---x------------------(y|)', // y waits for c, which has three times 5 ms, and 1 ms between
      taken: '  ---x------------------y--|',
      pool: '   01...212..............1..0', // tens of bytes, '.' as before
      tickets: { a: 'trained', b: 'dropped in caption', c: /^quarantined in caption: Timeout/, d: 'trained' },
      waits: { source: 1, caption: 18 },
    },
  });
});
