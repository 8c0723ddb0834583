// Clipping of a step's gradients: by one norm over all, by a norm for each group, or adaptively (Brock et al.,
// arXiv 2102.06171). Norms scale the gradient inside the update and cost one pass; adaptive clipping writes gradients.

import { z } from '../schema.js';
import { noGrad, op, scope, type Tensor } from '../tensor/index.js';
import { gradNorms } from './grad-norm.js';
import { namesOf } from './groups.js';
import type { GradientScale } from './optimizer.js';

const NORM = z.number().positive();

/** How gradients are clipped. */
export const CLIP = z.union(
  [
    z.strictObject({ norm: NORM }),
    /** The largest norm of the parameters that a pattern matches, by pattern: those of no pattern are not clipped. */
    z.strictObject({ perGroup: z.record(z.string().min(1), NORM) }),
    /** The largest norm of a row's gradient, as a share of the row's own. */
    z.strictObject({ adaptive: NORM }),
  ],
  'expected { norm }, { perGroup: { pattern: norm } } or { adaptive: share }, each above 0',
);

export type ClipOptions = z.output<typeof CLIP>;

export interface Measured {
  /** Of all gradients, before clipping. */
  readonly norm: number;
  /** Of each tensor's; undefined where it has none. */
  readonly norms: readonly (number | undefined)[];
  /** What the update is to multiply gradients by. */
  readonly scale: GradientScale;
  readonly clipped: boolean;
}

/** Rows smaller than this count as this. */
const LEAST_NORM = 1e-3;

const vectorNorm = op('aten::linalg_vector_norm');
const clampMin = op('aten::clamp_min');
const clampMax = op('aten::clamp_max');
const amin = op('aten::amin');

/** Clips the gradients of fixed tensors. */
export class Clipping {
  readonly #tensors: readonly Tensor[];
  readonly #options: ClipOptions;
  /** Indices of tensors and their largest norm. */
  readonly #groups: readonly { readonly members: ReadonlySet<number>; readonly norm: number }[];

  /** @throws {ConfigError} when a pattern matches nothing */
  constructor(named: readonly (readonly [string, Tensor])[], options: ClipOptions) {
    this.#tensors = named.map(([, tensor]) => tensor);
    this.#options = options;
    const perGroup = 'perGroup' in options ? Object.entries(options.perGroup) : [];
    const members = named.map(([name]) => ({ name }));
    const taken = new Set<number>();
    this.#groups = perGroup.map(([pattern, norm]) => {
      const names = namesOf(members, pattern, 'step.clip.perGroup');
      const own = new Set(members.flatMap(({ name }, i) => (names.has(name) && !taken.has(i) ? [i] : [])));
      for (const i of own) taken.add(i); // one of two patterns goes by the first
      return { members: own, norm };
    });
  }

  /** Measures, and says what the update is to scale by: nothing is written but by adaptive clipping.
   *  @param count what the gradients are divided by
   *  @returns a norm that is not finite where a gradient is not; the caller stops */
  measure(count: number): Measured {
    return scope(() => {
      const gradients = this.#tensors.map((tensor) => tensor.grad);
      const ofPresent = gradNorms(gradients.filter((gradient) => gradient !== null)).values();
      const norms = gradients.map((gradient) => (gradient ? ofPresent.next().value! / count : undefined));
      const options = this.#options;
      const norm = Math.sqrt(norms.reduce<number>((sum, each = 0) => sum + each ** 2, 0));
      if (!Number.isFinite(norm)) return { norm, norms, scale: 1 / count, clipped: false };
      if ('norm' in options) {
        const clip = factor(norm, options.norm);
        return { norm, norms, scale: clip / count, clipped: clip < 1 };
      }
      if ('adaptive' in options) {
        const clipped = this.#clipRows(gradients, options.adaptive, count);
        return { norm, norms, scale: 1 / count, clipped };
      }
      const scales = this.#groupScales(norms);
      return {
        norm,
        norms,
        scale: scales.map((scale) => scale / count),
        clipped: scales.some((scale) => scale < 1),
      };
    });
  }

  #groupScales(norms: readonly (number | undefined)[]): number[] {
    const scales = norms.map(() => 1);
    for (const { members, norm } of this.#groups) {
      const sum = [...members].reduce((total, i) => total + (norms[i] ?? 0) ** 2, 0);
      for (const i of members) scales[i] = factor(Math.sqrt(sum), norm);
    }
    return scales;
  }

  /** Whether any row was. */
  #clipRows(gradients: readonly (Tensor | null)[], share: number, count: number): boolean {
    return noGrad(() => {
      let clipped = false;
      for (const [i, gradient] of gradients.entries()) {
        if (!gradient) continue;
        scope(() => {
          const most = clampMin(rowNorms(this.#tensors[i]!.detach()), LEAST_NORM).mul(share);
          const scale = clampMax(most.div(clampMin(rowNorms(gradient).div(count), 1e-6)), 1);
          if (amin(scale).item() >= 1) return;
          clipped = true;
          gradient.mul_(scale.to(gradient.dtype));
        });
      }
      return clipped;
    });
  }
}

function factor(norm: number, most: number): number {
  return Math.min(1, most / (norm + 1e-6));
}

/** Over all dims but the first; of a vector, over all of it. */
function rowNorms(x: Tensor): Tensor {
  const dims = x.ndim < 2 ? [] : Array.from({ length: x.ndim - 1 }, (_, i) => i + 1);
  return vectorNorm(
    x,
    2,
    dims.length > 0 ? dims : null,
    dims.length > 0,
    x.dtype === 'float64' ? 'float64' : 'float32',
  );
}
