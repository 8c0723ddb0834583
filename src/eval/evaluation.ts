// Held-out evaluation: samples through a flow with its own pool, answers by greedy decoding on the device, streaming
// scores. Also what `pipe eval` runs.

import sharp from 'sharp';
import type { Processor } from '../data/processor.js';
import type { Target } from '../data/types.js';
import { DataError } from '../errors.js';
import { type Part, definePart, make, part } from '../parts.js';
import { z } from '../schema.js';
import {
  type RunContext,
  type Sink,
  type SinkStream,
  type SinkOnError,
  ON_ERROR,
  everyNth,
} from '../train/sink.js';
import { Notices } from '../train/notices.js';
import { type Declared, checkFlow, sampleFlow } from '../train/sample-flow.js';
import { type Pipeline, type PipelineContext, flowSlot, sourceSlot } from '../train/pipeline.js';
import type { Outcome, SampleAnswer } from '../train/events.js';
import type { LedgerCounts } from '../flow/index.js';
import type { Score } from './score.js';

const DEFAULT_POOL_BYTES = 64 * 2 ** 20;
const PICTURE_SIZE = 160;

const EVALUATION = z.strictObject({
  name: z.string().default('eval'),
  /** Steps between evaluations; left out, only at the end. */
  every: z.int().positive().optional(),
  source: sourceSlot,
  /** The pipeline's own flow when left out. */
  flow: flowSlot.optional(),
  scores: z.array(part('score')).min(1),
  maxNewTokens: z.int().positive().default(16),
  /** Samples an evaluation, as the flow gives them; all when left out. */
  limit: z.int().positive().optional(),
  /** Fewer samples in the evaluations on the way; the last one takes `limit`. */
  limitOnTheWay: z.int().positive().optional(),
  /** Answers shown with their pictures. */
  samples: z.int().min(0).default(24),
  poolBytes: z.int().positive().default(DEFAULT_POOL_BYTES),
  onError: ON_ERROR,
});

type EvaluationOptions = z.output<typeof EVALUATION>;

/** `evaluation({ every: 200, source: parquet('test.parquet'), scores: [exactMatch()] })` */
export const evaluation = definePart({
  role: 'sink',
  kind: 'evaluation',
  schema: EVALUATION,
  create: (options, { pipeline }: PipelineContext): Sink => new Evaluation(options, pipeline),
});

class Evaluation implements Sink {
  readonly name = 'evaluation';
  readonly onError: SinkOnError;
  readonly due: (step: number) => boolean;
  readonly #options: EvaluationOptions;
  readonly #flow: readonly unknown[];
  readonly #sourceTimeoutMs: number | undefined;
  #context: RunContext | undefined;
  readonly #notices = new Notices();
  #lastFull = -1;

  constructor(options: EvaluationOptions, { flow, sourceTimeoutMs }: Pipeline) {
    this.#options = options;
    this.#flow = options.flow ?? flow;
    this.#sourceTimeoutMs = sourceTimeoutMs;
    this.onError = options.onError;
    this.due = everyNth(options.every);
  }

  async check({ processor }: { processor: Processor }): Promise<void> {
    await checkFlow(this.#declared(processor));
  }

  streams({ processor }: { processor: Processor }): SinkStream[] {
    const { name, limit } = this.#options;
    return [{ name, declared: this.#declared(processor), limit }];
  }

  get metrics(): string[] {
    return this.#options.scores.flatMap((score) => {
      const made = make(score as Part<'score', undefined, Score>, undefined);
      const names = made.names ?? Object.keys(made.result());
      return (names.length > 0 ? names : ['*']).map((name) => `${this.#options.name}/${name}`);
    });
  }

  start(context: RunContext): void {
    this.#context = context;
  }

  async after({ step }: { step: number }): Promise<void> {
    const { limit, limitOnTheWay } = this.#options;
    await this.#evaluate(step, Math.min(limitOnTheWay ?? Infinity, limit ?? Infinity));
    if (limitOnTheWay === undefined) this.#lastFull = step;
  }

  async end(lastStep: number, outcome: Outcome): Promise<void> {
    if (outcome !== 'complete' || this.#lastFull === lastStep) return;
    await this.#evaluate(lastStep, this.#options.limit ?? Infinity);
  }

  #declared(processor: Processor): Declared {
    const { name, source, poolBytes } = this.#options;
    return {
      where: `${name}: `,
      source,
      flow: this.#flow,
      poolBytes,
      sourceTimeoutMs: this.#sourceTimeoutMs,
      processor,
      purpose: 'evaluate',
    };
  }

  async #evaluate(step: number, limit: number): Promise<void> {
    const context = this.#context!;
    const { device, processor, signal } = context;
    const { name, maxNewTokens, samples } = this.#options;
    const scores = this.#options.scores.map((score) =>
      make(score as Part<'score', undefined, Score>, undefined),
    );
    const shown: SampleAnswer[] = [];
    let count = 0;
    const { ended, ledger } = await sampleFlow({
      ...this.#declared(processor),
      signal,
      notices: this.#notices,
      emit: (event) => context.emit(event),
      stream: name,
      step,
      quarantine: context.quarantine,
      log: (line) => context.log(line),
      consume: async (batch, { stop }) => {
        const { targets = [] } = batch;
        const answers = await device.answer(batch, { maxNewTokens, signal });
        for (const [index, target] of targets.slice(0, limit - count).entries()) {
          const answer = answers[index] ?? '';
          for (const score of scores) score.add(answer, target);
          if (shown.length < samples) shown.push(await show(answer, target));
        }
        count += Math.min(targets.length, limit - count);
        if (count >= limit) stop();
      },
    });
    if (ended === 'cancelled') return;
    if (count === 0) throw nothing(name, ledger);
    context.emit({ event: 'answers', step, name, answers: shown });
    context.emit({
      event: 'eval',
      step,
      name,
      count,
      scores: Object.assign({}, ...scores.map((score) => score.result())) as Record<string, number>,
    });
  }
}

function nothing(name: string, { issued, quarantined }: LedgerCounts): DataError {
  return new DataError({
    where: name,
    expected: 'at least one sample to evaluate on',
    received:
      issued === 0 ? 'none' : `${issued}, of which ${quarantined} were quarantined and none has an answer`,
    remedy: "check the evaluation's source and flow: its samples end in an assistant's turn",
  });
}

/** An answer as the report shows it, the picture as a small PNG. */
async function show(answer: string, { prompt, reference, image }: Target): Promise<SampleAnswer> {
  if (!image) return { prompt, reference, answer };
  const png = await sharp(image.data, { raw: { width: image.width, height: image.height, channels: 3 } })
    .resize(PICTURE_SIZE, PICTURE_SIZE, { fit: 'inside', kernel: 'nearest' })
    .png()
    .toBuffer();
  return { prompt, reference, answer, picture: `data:image/png;base64,${png.toString('base64')}` };
}
