// Held-out evaluation: samples through a flow with its own pool, answers by greedy decoding on the device, streaming
// scores. Also what `pipe eval` runs.

import sharp from 'sharp';
import { takeSource } from '../flow/index.js';
import type { Batch, Target } from '../data/types.js';
import { type Part, definePart, make, part } from '../parts.js';
import { z } from '../schema.js';
import { type RunContext, type Sink, everyNth } from '../train/sink.js';
import { sampleFlow } from '../train/sample-flow.js';
import { type PipelineContext, flowSlot, sourceSlot } from '../train/pipeline.js';
import type { SampleAnswer } from '../train/events.js';
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
  /** Samples an evaluation; all when left out. */
  limit: z.int().positive().optional(),
  /** Fewer samples in the evaluations on the way; the last one takes `limit`. */
  limitOnTheWay: z.int().positive().optional(),
  /** Answers shown with their pictures. */
  samples: z.int().min(0).default(24),
  poolBytes: z.int().positive().default(DEFAULT_POOL_BYTES),
});

type EvaluationOptions = z.output<typeof EVALUATION>;

/** `evaluation({ every: 200, source: parquet('test.parquet'), scores: [exactMatch()] })` */
export const evaluation = definePart({
  role: 'sink',
  kind: 'evaluation',
  schema: EVALUATION,
  create: (options, { pipeline }: PipelineContext): Sink => new Evaluation(options, pipeline.flow),
});

class Evaluation implements Sink {
  readonly name = 'evaluation';
  readonly due: (step: number) => boolean;
  readonly #options: EvaluationOptions;
  readonly #flow: readonly unknown[];
  #context: RunContext | undefined;
  #lastFull = -1;

  constructor(options: EvaluationOptions, pipelineFlow: readonly unknown[]) {
    this.#options = options;
    this.#flow = options.flow ?? pipelineFlow;
    this.due = everyNth(options.every);
  }

  start(context: RunContext): void {
    this.#context = context;
  }

  async after({ step }: { step: number }): Promise<void> {
    const { limit, limitOnTheWay } = this.#options;
    await this.#evaluate(step, Math.min(limitOnTheWay ?? Infinity, limit ?? Infinity));
    if (limitOnTheWay === undefined) this.#lastFull = step;
  }

  async end(lastStep: number, reason: 'complete' | 'stopped' | 'failed'): Promise<void> {
    if (reason !== 'complete' || this.#lastFull === lastStep) return;
    await this.#evaluate(lastStep, this.#options.limit ?? Infinity);
  }

  async #evaluate(step: number, limit: number): Promise<void> {
    const context = this.#context!;
    const { name, source, maxNewTokens, samples, poolBytes } = this.#options;
    const scores = this.#options.scores.map((score) =>
      make(score as Part<'score', undefined, Score>, undefined),
    );
    const shown: SampleAnswer[] = [];
    let count = 0;
    const summary = await sampleFlow({
      source,
      flow: this.#flow,
      limit: (opened) => (limit === Infinity ? opened : takeSource(opened, limit)),
      purpose: 'evaluate',
      processor: context.processor,
      poolBytes,
      signal: context.signal,
      emit: (event) => context.emit(event),
      consume: async ({ targets = [], ...batch }: Batch) => {
        const rows = await context.device.generate(batch, { maxNewTokens });
        for (const [index, target] of targets.entries()) {
          if (count >= limit) break;
          const answer = context.processor.decode(rows[index] ?? [], { skipSpecialTokens: true });
          for (const score of scores) score.add(answer, target);
          count += 1;
          if (shown.length < samples) shown.push(await show(answer, target));
        }
      },
    });
    if (summary.ended === 'cancelled') return;
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

/** An answer as the report shows it, the picture as a small PNG. */
async function show(answer: string, { prompt, reference, image }: Target): Promise<SampleAnswer> {
  if (!image) return { prompt, reference, answer };
  const png = await sharp(image.data, { raw: { width: image.width, height: image.height, channels: 3 } })
    .resize(PICTURE_SIZE, PICTURE_SIZE, { fit: 'inside', kernel: 'nearest' })
    .png()
    .toBuffer();
  return { prompt, reference, answer, picture: `data:image/png;base64,${png.toString('base64')}` };
}
