// What the compiler says about pipeline files. The @ts-expect-error lines are checked by `npm run typecheck`: one that
// is no error is an error there.

import { map as rxMap } from 'rxjs';
import { describe, expect, expectTypeOf, it } from 'vitest';
import {
  type Batch,
  type Example,
  type Sample,
  adamw,
  assistant,
  batch,
  chat,
  checkpoints,
  constant,
  cosine,
  decodeMedia,
  encode,
  evaluation,
  exactMatch,
  filter,
  flatMap,
  gemma3n,
  image,
  lift,
  map,
  metrics,
  parquet,
  pipeline,
  report,
  sft,
  text,
  user,
} from '../../src/index.js';
import { decodePipeline } from '../../src/train/pipeline.js';

interface Vqa {
  readonly image: Uint8Array;
  readonly question: string;
}

const model = gemma3n('folder');
const step = sft({ optimizer: adamw({ lr: 1e-3 }), schedule: cosine({ warmup: 0.1 }), maxSteps: 10 });
const source = parquet<Vqa>('rows.parquet');
const sampleOf = (row: Vqa): Sample => chat(user(image(row.image), text(row.question)), assistant('red'));
const rest = [decodeMedia(), encode(), batch({ size: 4 })] as const;

describe('the types of a pipeline file', () => {
  it('let a whole job through, rows typed in the first entry', () => {
    const job = pipeline({
      name: 'job',
      seed: 1,
      model,
      source,
      flow: [
        map((row) => {
          expectTypeOf(row).toEqualTypeOf<Vqa>();
          return sampleOf(row);
        }),
        decodeMedia({ concurrency: 2 }),
        encode(),
        batch({ tokens: 100, maxSize: 3 }),
      ],
      step,
      sinks: [
        metrics(),
        checkpoints({ every: 5, keep: 2 }),
        evaluation({ source, scores: [exactMatch({ by: 'kind' })] }),
        report(),
      ],
    });
    expect(decodePipeline(job, [], 'job.ts').sinks).toHaveLength(4);
    const variant = pipeline({ ...job, name: 'longer', poolBytes: 2 ** 30 });
    expect(decodePipeline(variant, [], 'job.ts').name).toBe('longer');
  });

  it('follow the flow from entry to entry', () => {
    pipeline({ name: 'a', model, source, flow: [flatMap((row: Vqa) => [sampleOf(row)]), ...rest], step });
    pipeline({ name: 'a', model, source, flow: [rxMap(sampleOf), ...rest], step });
    pipeline({
      name: 'a',
      model,
      source,
      flow: [filter((row: Vqa) => row.question !== ''), map(sampleOf), ...rest],
      step,
    });
    pipeline({ name: 'a', model, source, flow: [lift(rxMap(sampleOf)), ...rest], step });

    const column = map((row: Vqa) => {
      // @ts-expect-error the rows have no such column
      return text(row.nothing);
    });
    // @ts-expect-error texts are no samples
    pipeline({ name: 'a', model, source, flow: [column, ...rest], step });
    // @ts-expect-error rows are no samples
    pipeline({ name: 'a', model, source, flow: [decodeMedia(), encode(), batch({ size: 4 })], step });
    // @ts-expect-error samples have to be encoded before they are batched
    pipeline({ name: 'a', model, source, flow: [map(sampleOf), decodeMedia(), batch({ size: 4 })], step });
    // @ts-expect-error the flow ends in examples, not in batches
    pipeline({ name: 'a', model, source, flow: [map(sampleOf), decodeMedia(), encode()], step });
    // @ts-expect-error the source gives other rows than the flow takes
    pipeline({ name: 'a', model, source: parquet<{ a: 1 }>('x'), flow: [map(sampleOf), ...rest], step });
    expectTypeOf<Example['inputIds']>().toEqualTypeOf<Int32Array>();
    expectTypeOf<Batch['numLabels']>().toEqualTypeOf<number>();
  });

  it('refuse wrong keys, wrong values and parts of another role', () => {
    const flow = [map(sampleOf), ...rest] as const;
    // @ts-expect-error a wrong key of the pipeline
    pipeline({ name: 'a', model, source, flow, step, colour: 'red' });
    // @ts-expect-error a wrong key of a part
    gemma3n('folder', { dtyp: 'float32' });
    // @ts-expect-error a wrong value
    gemma3n('folder', { dtype: 'int8' });
    // @ts-expect-error a wrong key
    sft({ optimizer: adamw({ lr: 1 }), schedule: constant(), maxSteps: 1, clip: 1 });
    // @ts-expect-error a missing key
    sft({ optimizer: adamw({ lr: 1 }), schedule: constant() });
    // @ts-expect-error a wrong type
    adamw({ lr: '1e-3' });
    // @ts-expect-error a wrong key
    checkpoints({ evry: 5 });
    // @ts-expect-error either size or tokens
    batch({ length: 4 });
    // @ts-expect-error a schedule is no sink
    pipeline({ name: 'a', model, source, flow, step, sinks: [constant()] });
    // @ts-expect-error an optimizer is no step
    pipeline({ name: 'a', model, source, flow, step: adamw({ lr: 1 }) });
    // @ts-expect-error a sink is no score
    evaluation({ source, scores: [metrics()] });
  });
});
