// One adapter's part in one linear module: the matrices A and B, and DoRA's magnitudes.
//
//   LoRA  y = base(x) + s B A dropout(x)
//   DoRA  y = g * (W x + s B A x) + b,  g = m / ||W + s B A||, the norm of each row, a constant to the gradient
//
// With 'pissa' A and B begin as the largest singular parts of s^-1 W, and what they began as, A0 and B0, is subtracted:
// B A - B0 A0 stands for B A. PEFT subtracts it from W instead, which rounds W and has to be undone for every other use.

import { type Linear, parameter } from '../nn/index.js';
import {
  type DType,
  type Tensor,
  cat,
  empty,
  hasFastBfloat16,
  isGradEnabled,
  noGrad,
  op,
  scope,
} from '../tensor/index.js';
import { scalingOf } from './config.js';

const loraOp = op('sluice::lora');
const loraGroup = op<Tensor[]>('sluice::lora_group');
const dropoutOp = op('aten::dropout');
const uniform_ = op('aten::uniform_');
const normal_ = op('aten::normal_');
const svd = op<[Tensor, Tensor, Tensor]>('aten::linalg_svd');
const versionOf = op<number>('aten::_version');
const rowNorm = op('aten::linalg_vector_norm');

export interface LoraLayerOptions {
  readonly rank: number;
  readonly alpha: number;
  readonly rsLora: boolean;
  readonly dropout: number;
  readonly hasMagnitude: boolean;
}

/** A and B as they began, where they did not begin at an update of zero. */
interface Start {
  /** [rank, inFeatures] */
  readonly a: Tensor;
  /** [outFeatures, rank] */
  readonly b: Tensor;
}

/** ||W||^2 and ||W + s B A|| by rows, and what they are of. */
interface Norms {
  readonly weight: Tensor;
  readonly squares: Tensor;
  versions?: string;
  norm?: Tensor;
}

export class LoraLayer {
  /** [rank, inFeatures], float32 whatever the model's dtype, unless that is wider */
  readonly a: Tensor;
  /** [outFeatures, rank] */
  readonly b: Tensor;
  /** [outFeatures], DoRA's */
  readonly magnitude: Tensor | undefined;
  #start: Start | undefined;
  #norms: Norms | undefined;

  /** A, B and magnitudes are uninitialised: `initialise` them, or fill them from a file. */
  constructor(
    readonly linear: Linear,
    readonly options: LoraLayerOptions,
  ) {
    const { inFeatures, outFeatures, weight, device } = linear;
    const place = { dtype: ofAdapters(weight.dtype), device };
    this.a = parameter(empty([options.rank, inFeatures], place));
    this.b = parameter(empty([outFeatures, options.rank], place));
    this.magnitude = options.hasMagnitude ? parameter(empty([outFeatures], place)) : undefined;
  }

  get scaling(): number {
    return scalingOf(this.options.alpha, this.options.rank, this.options.rsLora);
  }

  /** What learns. */
  get tensors(): readonly Tensor[] {
    return [this.a, this.b, ...(this.magnitude ? [this.magnitude] : [])];
  }

  /** A and B as they began, with 'pissa'. */
  get start(): Start | undefined {
    return this.#start;
  }
  set start(start: Start | undefined) {
    for (const tensor of Object.values(this.#start ?? {}) as Tensor[]) tensor.dispose();
    this.#start = start && { a: parameter(start.a, FROZEN), b: parameter(start.b, FROZEN) };
  }

  /** Draws A from the engine's generator, so that the update is zero; the magnitudes are the norms of W's rows. */
  initialise(init: 'kaiming' | 'gaussian' | 'pissa'): void {
    noGrad(() =>
      scope(() => {
        const { rank } = this.options;
        if (init === 'pissa') {
          this.start = this.principalParts();
          this.a.copy_(this.start.a);
          this.b.copy_(this.start.b);
        } else {
          // Kaiming's uniform draw with a = sqrt(5), as of linear layers
          const bound = 1 / Math.sqrt(this.linear.inFeatures);
          if (init === 'kaiming') uniform_(this.a, -bound, bound);
          else normal_(this.a, 0, 1 / rank);
          this.b.zero_();
        }
        this.magnitude?.copy_(this.norm());
      }),
    );
  }

  /** A0 and B0 of 'pissa': s B0 A0 is the best approximation of W of this rank. */
  principalParts(): Start {
    return noGrad(() =>
      scope(() => {
        const { rank } = this.options;
        const [u, sizes, v] = svd(this.#numbers().to(this.a.dtype), false);
        const root = sizes.narrow(0, 0, rank).div(this.scaling).sqrt();
        return {
          a: v.narrow(0, 0, rank).mul(root.unsqueeze(1)).contiguous(),
          b: u.narrow(1, 0, rank).mul(root).contiguous(),
        };
      }),
    );
  }

  /** Whether `withBase` may stand for the module's own product and this adapter. */
  isAtOnce(x: Tensor, linear: Linear): boolean {
    const isSteady = this.options.dropout === 0 || !linear.training;
    if (linear.quantised) return isSteady && (x.dtype === 'float32' || hasFastBfloat16());
    return isSteady && linear.isDense && (x.dtype === 'float32' || x.dtype === 'bfloat16');
  }

  /** The module's own product and this adapter, without passes between. */
  withBase(x: Tensor, linear: Linear): Tensor {
    const { quantised, bias } = linear;
    if (!quantised) return LoraLayer.allWithBase(x, [[this, linear]])[0]!;
    return scope(() =>
      quantised.lora(x, bias, { ...this.matrices(), scale: this.scaling, gain: this.#gainNow() }),
    );
  }

  /** `withBase` of an input whose output is known: the graph without the product. Undefined where only `withBase` makes
   *  it: of a gain's gradient the output says too little. */
  graphWithBase(x: Tensor, linear: Linear): ((output: Tensor) => Tensor) | undefined {
    if (this.magnitude || !this.isAtOnce(x, linear)) return undefined;
    return (output) =>
      scope(() => {
        const { quantised, weight, bias } = linear;
        const { a, b } = this.matrices();
        return quantised
          ? quantised.lora(x, bias, { a, b, scale: this.scaling }, output)
          : loraOp(x, weight, bias, a, b, this.scaling, undefined, output);
      });
  }

  /** The same of several modules and their adapters: what they need of the one input is computed together. */
  static allWithBase(x: Tensor, pairs: readonly (readonly [LoraLayer, Linear])[]): Tensor[] {
    return scope(() => {
      const parts = pairs.map(([layer]) => layer.matrices());
      return loraGroup(
        x,
        pairs.map(([, { weight }]) => weight),
        pairs.map(([, { bias }]) => bias),
        parts.map(({ a }) => a),
        parts.map(({ b }) => b),
        pairs.map(([layer]) => layer.scaling),
        pairs.map(([layer]) => layer.#gainNow()),
      );
    });
  }

  #gainNow(): Tensor | undefined {
    if (!this.magnitude) return undefined;
    return this.gain(isGradEnabled() && (this.a.requiresGrad || this.b.requiresGrad));
  }

  /** @param x [..., inFeatures] @param result of the module so far @returns the result with this adapter */
  forward(x: Tensor, result: Tensor, linear: Linear): Tensor {
    const p = linear.training ? this.options.dropout : 0;
    const input = p > 0 ? dropoutOp(x, p, true) : x;
    const update = this.#update(input);
    if (!this.magnitude) return result.add(update);

    const { bias } = linear;
    const gain = this.gain(update.requiresGrad).to(result.dtype);
    if (p > 0) {
      // Of the dropped-out input, as PEFT has it; its own base product is another than the result's.
      const base = linear.product(input);
      return result.add((bias ? base.sub(bias) : base).mul(gain.sub(1))).add(update.mul(gain));
    }
    const sum = (bias ? result.sub(bias) : result).add(update).mul(gain);
    return bias ? sum.add(bias) : sum;
  }

  /** s B A x, less s B0 A0 x. */
  #update(x: Tensor): Tensor {
    const { a, b } = this.matrices();
    const [down, up] = [a.to(x.dtype), b.mul(this.scaling).to(x.dtype)];
    return x.matmul(down.transpose(0, 1)).matmul(up.transpose(0, 1));
  }

  /** A and B of the update, those of the start included: rank 2r then, B0 negated. */
  matrices(): Start {
    const start = this.#start;
    return start ? { a: cat([this.a, start.a], 0), b: cat([this.b, start.b.neg()], 1) } : this;
  }

  /** m / ||W + s B A||, [outFeatures] */
  gain(isRecorded = false): Tensor {
    return this.magnitude!.div(this.norm(isRecorded));
  }

  /** ||W + s B A|| by rows, without that matrix:
   *  ||W||^2 + 2 s B . (W A^T) + s^2 B . (B (A A^T)), summed by rows. It has no gradient. While nothing is recorded for
   *  one, which an update of A and B needs, it is kept: decoding asks for it at every token.
   *  @returns [outFeatures], float32 */
  norm(isRecorded = false): Tensor {
    const { weight } = this.linear;
    if (this.#norms?.weight !== weight) this.forget();
    const norms = (this.#norms ??= { weight, squares: this.#squares(weight) });
    // An optimizer's fused update does not count as a version.
    const versions = [weight, this.a, this.b].map((tensor) => versionOf(tensor)).join();
    if (!isRecorded && norms.norm && norms.versions === versions) return norms.norm;
    norms.norm?.dispose();
    delete norms.norm;
    const made = noGrad(() => scope(() => this.#normNow(weight, norms.squares)));
    if (isRecorded) return made;
    norms.versions = versions;
    return (norms.norm = lasting(made));
  }

  #normNow(weight: Tensor, squares: Tensor): Tensor {
    const { a, b } = this.matrices();
    const across = this.#across(weight, a.detach());
    const inner = a.detach().matmul(a.detach().transpose(0, 1));
    const outer = across.mul(2).add(b.detach().matmul(inner).mul(this.scaling));
    const change = b.detach().mul(outer).sum(1).mul(this.scaling);
    return change.add(squares).clamp({ min: 0 }).sqrt();
  }

  /** What was computed of W before it changed by other than the engine's operators. */
  forget(): void {
    this.#norms?.squares.dispose();
    this.#norms?.norm?.dispose();
    this.#norms = undefined;
  }

  dispose(): void {
    this.forget();
    this.start = undefined;
    for (const tensor of this.tensors) tensor.dispose();
  }

  /** W with the update, in W's dtype: what the module computes then is what it computes now, but for rounding.
   *  @param weight W, or W with other adapters' updates @returns [outFeatures, inFeatures] */
  merged(weight: Tensor): Tensor {
    return noGrad(() =>
      scope(() => {
        const { a, b } = this.matrices();
        const sum = weight.detach().to(this.a.dtype).add(b.detach().matmul(a.detach()).mul(this.scaling));
        const whole = this.magnitude ? sum.mul(this.gain().unsqueeze(1)) : sum;
        return whole.detach().to(weight.dtype);
      }),
    );
  }

  /** W A^T, [outFeatures, rank], in A's dtype: W is widened some rows at a time. */
  #across(weight: Tensor, a: Tensor): Tensor {
    const down = a.transpose(0, 1);
    return this.#eachRows(weight, (rows) => rows.to(a.dtype).matmul(down));
  }

  #squares(weight: Tensor): Tensor {
    const { dtype } = this.a;
    const made = noGrad(() =>
      scope(() => this.#eachRows(weight, (rows) => rowNorm(rows.to(dtype), 2, [1]).square())),
    );
    return lasting(made);
  }

  /** What `make` gives of some of W's rows at a time, put together; of a quantised one, what it stands for. */
  #eachRows(weight: Tensor, make: (rows: Tensor) => Tensor): Tensor {
    const { quantised } = this.linear;
    return quantised ? quantised.eachRows(make) : eachRows(weight, make);
  }

  #numbers(): Tensor {
    const { quantised, weight } = this.linear;
    return quantised ? quantised.dequantised() : weight.detach();
  }
}

const FROZEN = { requiresGrad: false };
const ROWS_BYTES = 16 * 2 ** 20;

/** Adapters are small, and learn by small steps: bfloat16 would lose these. */
function ofAdapters(dtype: DType): DType {
  return dtype === 'float64' ? 'float64' : 'float32';
}

/** What `make` gives of some rows at a time, put together. */
function eachRows(weight: Tensor, make: (rows: Tensor) => Tensor): Tensor {
  const plain = weight.detach();
  const [count = 0, size = 1] = plain.shape;
  const step = Math.max(1, Math.floor(ROWS_BYTES / (4 * size)));
  if (count <= step) return make(plain);
  const parts: Tensor[] = [];
  for (let row = 0; row < count; row += step) {
    parts.push(scope(() => make(plain.narrow(0, row, Math.min(step, count - row)))));
  }
  return cat(parts, 0);
}

function lasting(tensor: Tensor): Tensor {
  return parameter(tensor, FROZEN);
}
