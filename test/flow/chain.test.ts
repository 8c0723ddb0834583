import { filter as rxFilter, map as rxMap, type Observable, type OperatorFunction, of } from 'rxjs';
import { describe, expect, expectTypeOf, it } from 'vitest';
import {
  batch,
  chain,
  filter,
  flatMap,
  map,
  orderedMap,
  runFlow,
  stagesOf,
  type AnyEntry,
  type FlowEntries,
  type FlowEntry,
  type Source,
  type Stage,
  type StageOf,
} from '../../src/flow/index.js';
import { books, issue, origin, sourceOf, valuesOf } from './helpers.js';

interface Row {
  readonly question: string;
}

/** A pipeline file's builder, as one outside the flow would write it. */
interface Spec<A, B, C, D> {
  readonly source: Source<Row>;
  readonly flow: FlowEntries<Row, A, B, C, D>;
}
function pipeline<A = Row, B = A, C = B, D = C>(spec: Spec<A, B, C, D>): D[] {
  void spec;
  return [];
}
const encode = (): Stage<{ text: string }, number[]> =>
  map((sample: { text: string }) => [sample.text.length]);
const pad = (values: readonly number[][]): { ids: number[][] } => ({ ids: [...values] });
const source = sourceOf<Row>([{ question: 'what' }]);

describe('chain', () => {
  it('joins stages and operators to one stage', () => {
    const { ledger } = books();
    const stage = chain(
      map((n: number) => n + 1),
      rxFilter((n) => n > 2),
      batch({ size: 2 }, (values) => values.join(' ')),
    );
    const values: string[] = [];
    stage
      .connect(of(1, 2, 3).pipe(issue(ledger)))
      .pipe(valuesOf())
      .subscribe((value) => values.push(value));
    expect(values).toEqual(['3 4']);
    expect(stage.name).toBe('map > chain[1] > batch');
  });

  it('is taken apart by the run, so that each part is blamed and checked by its own name', async () => {
    const rows: string[] = [];
    const inner = chain(
      map((n: number) => n, { name: 'one' }),
      chain(
        map((n: number) => n, { name: 'two' }),
        map(
          (n: number) => {
            if (n === 1) throw new Error('bad');
            return n;
          },
          { name: 'three' },
        ),
      ),
    );
    expect(stagesOf([inner, rxMap((n: number) => n)]).map((stage) => stage.name)).toEqual([
      'one',
      'two',
      'three',
      'flow[1]',
    ]);
    await runFlow({
      source: sourceOf([0, 1, 2]),
      stages: [inner],
      poolBytes: 1000,
      consume: (n) => void rows.push(String(n)),
      onEvent: (event) => event.kind === 'quarantine' && rows.push(event.stage),
    });
    expect(rows.sort()).toEqual(['0', '2', 'three']);
  });

  it('refuses what is neither stage nor operator, with its place', () => {
    const wrong = (entry: unknown): (() => unknown) => {
      return () => stagesOf([map((n: number) => n), entry as AnyEntry]);
    };
    const rest = 'write an operator such as map(...), or a function from observable to observable';
    expect(wrong(3)).toThrow(`flow[1]: expected a stage or an RxJS operator, received number; ${rest}`);
    expect(wrong(null)).toThrow(`flow[1]: expected a stage or an RxJS operator, received null; ${rest}`);
    expect(wrong({})).toThrow(`flow[1]: expected a stage or an RxJS operator, received object; ${rest}`);
    expect(() => chain(undefined as unknown as FlowEntry<number, number>)).not.toThrow();
  });
});

describe('the types of a flow', () => {
  it('give the first lambda the type of the row, and the result the type of the last entry', () => {
    const result = pipeline({
      source,
      flow: [map((row) => ({ text: row.question })), encode(), batch({ size: 8 }, pad)],
    });
    expectTypeOf(result).toEqualTypeOf<{ ids: number[][] }[]>();
    expectTypeOf(pipeline({ source, flow: [map((row) => row.question.length)] })).toEqualTypeOf<number[]>();
  });

  it('give the first lambda the type of any source', () => {
    function open<T, A = T, B = A>(spec: { source: Source<T>; flow: FlowEntries<T, A, B> }): B[] {
      void spec;
      return [];
    }
    const result = open({
      source: sourceOf([{ n: 1 }]),
      flow: [map((row) => row.n), rxMap((n: number) => `${n}`)],
    });
    expectTypeOf(result).toEqualTypeOf<string[]>();
  });

  it('take RxJS operators for stages, lambdas inferred in the first place', () => {
    const result = pipeline({
      source,
      flow: [rxMap((row) => row.question.length), rxFilter((n: number) => n > 1), map((n: number) => `${n}`)],
    });
    expectTypeOf(result).toEqualTypeOf<string[]>();
  });

  it('infer every lambda inside a chain', () => {
    const result = pipeline({
      source,
      flow: [
        chain(
          map((row) => row.question),
          filter((question) => question.length > 2),
          flatMap((question) => question.split(' ')),
          rxMap((word) => word.length),
          orderedMap(async (n) => n.toFixed()),
          batch({ size: 2 }, (values) => new Set(values)),
        ),
      ],
    });
    expectTypeOf(result).toEqualTypeOf<Set<string>[]>();
  });

  it('await promises and unwrap observables of a mapping function', () => {
    expectTypeOf(map(async (n: number) => `${n}`)).toEqualTypeOf<StageOf<number, string>>();
    expectTypeOf(orderedMap((n: number): Observable<string> => of(`${n}`))).toEqualTypeOf<
      StageOf<number, string>
    >();
  });

  it('refuse entries that do not fit each other', () => {
    // @ts-expect-error encode takes { text }, the row has none
    pipeline({ source, flow: [encode()] });
    // @ts-expect-error encode takes { text }, the map makes a string
    pipeline({ source, flow: [map((row) => row.question), encode()] });
    // @ts-expect-error a number is no entry
    pipeline({ source, flow: [3] });
    // @ts-expect-error the row has no such column
    pipeline({ source, flow: [map((row) => String(row.answer))] });
    const operator: OperatorFunction<number, string> = rxMap((n) => `${n}`);
    expectTypeOf(operator).toExtend<FlowEntry<number, string>>();
    expectTypeOf(operator).not.toExtend<FlowEntry<string, string>>();
    expect(origin(0).row).toBe(0);
  });

  it('go through up to eight entries', () => {
    const add = map((n: number) => n + 1);
    const stage = chain(
      add,
      add,
      add,
      add,
      add,
      add,
      add,
      rxMap((n) => String(n)),
    );
    expectTypeOf(stage).toEqualTypeOf<StageOf<number, string>>();
    const flow: FlowEntries<number, number, number, number, number, number, number, number, string> = [
      add,
      add,
      add,
      add,
      add,
      add,
      add,
      rxMap((n) => String(n)),
    ];
    expect(stagesOf(flow)).toHaveLength(8);
  });
});
