// tee: a sink that sees values on their way.

import { FlowError, messageOf } from '../errors.js';
import { Call, checkCount, type MapContext, stageOf } from './options.js';
import { Fatal, Pending, at, isPromise, transform } from './transform.js';
import type { Stage, StageOf, Ticket } from './types.js';

export interface TeeSink<A> {
  /** `tee` by default. */
  readonly name?: string;
  /** Takes one value; it goes on when the promise resolves, so that later stages may change or transfer it. */
  readonly write: (value: A, context: MapContext) => void | Promise<void>;
}

export interface TeeOptions {
  /** A failing sink stops the run ('stop', the default), or is reported and called no more ('detach'). */
  readonly onError?: 'stop' | 'detach';
  /** How many values may be with the sink at once; 1 by default, so that it sees them one by one, in order. */
  readonly concurrency?: number;
}

/** Shows each value to a sink and passes it on unchanged, in order. What waits for a slow sink keeps its ticket, so the
 *  pool bounds it. The sink is not closed here: whoever made it closes it after the run. */
export function tee<A>(
  sink: TeeSink<A>,
  { onError = 'stop', concurrency = 1 }: TeeOptions = {},
): StageOf<A, A> {
  const name = sink.name ?? 'tee';
  checkCount(`${name}: concurrency`, concurrency);

  const connect: Stage<A, A>['connect'] = (source) => {
    let attached = true;

    const failed = (value: A, error: unknown, ticket: Ticket): A | Fatal => {
      if (onError === 'stop') return new Fatal(sinkError(name, error, ticket));
      if (attached) ticket.report({ kind: 'detach', origin: ticket.origin, stage: name, error });
      attached = false;
      return value;
    };

    return transform<A, A>(
      (value, ticket) => {
        if (!attached) return value;
        const call = new Call(ticket);
        try {
          const written: unknown = sink.write(value, call);
          if (!isPromise(written)) return value;
          return new Pending((finish) => {
            written.then(
              () => finish(value),
              (error: unknown) => finish(failed(value, error, ticket)),
            );
            return () => call.abort();
          });
        } catch (error) {
          return failed(value, error, ticket);
        }
      },
      { name, concurrency },
    )(source);
  };

  return stageOf({ name, concurrency, onlooker: true, connect });
}

function sinkError(name: string, error: unknown, ticket: Ticket): FlowError {
  return new FlowError(
    {
      where: at(name, ticket.origin),
      expected: 'the sink to take the value',
      received: `an error: ${messageOf(error)}`,
      remedy: "mend the sink, or declare { onError: 'detach' } to go on without it",
    },
    { cause: error },
  );
}
