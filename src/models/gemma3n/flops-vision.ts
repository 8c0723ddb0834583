// Products of the image tower, block by block as MobileNetV5Encoder computes them.

import { type Block, EdgeResidual, MobileAttention, UniversalInvertedResidual } from './mobilenet-blocks.js';
import type { MobileAttentionArgs } from './mobilenet-args.js';
import type { Conv2d, ConvNormAct, SqueezeExcite } from './mobilenet-layers.js';
import { type PlannedBlock, planTower } from './mobilenet-plan.js';
import type { Products } from './products.js';
import type { VisionTower } from './vision.js';

type Size = readonly [height: number, width: number];

/** Features on their way: their size, and whether they need a gradient. */
interface Features {
  readonly size: Size;
  readonly needs: boolean;
}

/** @returns whether the tower's result needs a gradient: [images, softTokens, 2048] */
export function countVision(
  products: Products,
  { timmModel, config }: VisionTower,
  images: number,
  size: Size,
): boolean {
  const { stages, fusedStages } = planTower(config.tower);
  const tower = new TowerProducts(products, images);
  let x = tower.normed(timmModel.convStem, { size, needs: false });
  const fused: Features[] = fusedStages.includes(0) ? [x] : [];
  for (let stage = 1; stage <= Math.max(...fusedStages); stage++) {
    for (const [i, block] of (timmModel.blocks[stage - 1] ?? []).entries()) {
      x = tower.block(block, stages[stage - 1]?.[i], x);
    }
    if (fusedStages.includes(stage)) fused.push(x);
  }
  const { ffn, norm } = timmModel.msfa;
  const enlarged = { size: fused[0]?.size ?? x.size, needs: fused.some(({ needs }) => needs) };
  return tower.inverted(ffn, enlarged).needs || products.learning.has(norm.weight);
}

class TowerProducts {
  constructor(
    private readonly products: Products,
    private readonly images: number,
  ) {}

  block(block: Block, planned: PlannedBlock | undefined, x: Features): Features {
    if (block instanceof EdgeResidual) return this.edge(block, x);
    if (block instanceof UniversalInvertedResidual) return this.inverted(block, x);
    if (planned?.args.blockType !== 'mqa') throw new Error('a block beside its plan');
    return this.mobileAttention(block, planned.args, x);
  }

  /** A convolution, then a norm and an activation. */
  normed({ conv, bn }: ConvNormAct, x: Features): Features {
    return this.#withNorm(this.#conv(conv, x), bn.weight);
  }

  inverted(block: UniversalInvertedResidual, x: Features): Features {
    const { dwStart, pwExp, dwMid, se, pwProj, dwEnd, layerScale } = block;
    let y = x;
    if (dwStart) y = this.normed(dwStart, y);
    y = this.normed(pwExp, y);
    if (dwMid) y = this.normed(dwMid, y);
    if (se) y = this.#squeezed(se, y);
    y = this.normed(pwProj, y);
    if (dwEnd) y = this.normed(dwEnd, y);
    return this.#withNorm(this.#joined(y, x), layerScale?.gamma);
  }

  private edge({ convExp, bn1, se, convPwl, bn2 }: EdgeResidual, x: Features): Features {
    let y = this.#withNorm(this.#conv(convExp, x), bn1.weight);
    if (se) y = this.#squeezed(se, y);
    return this.#joined(this.#withNorm(this.#conv(convPwl, y), bn2.weight), x);
  }

  private mobileAttention(
    { convCpeDw, norm, attn, layerScale }: MobileAttention,
    args: MobileAttentionArgs,
    x: Features,
  ): Features {
    const [strideH, strideW] = args.queryStrides;
    const placed = convCpeDw ? this.#joined(this.#conv(convCpeDw, x), x) : x;
    const input = this.#withNorm(placed, norm.weight);
    const { size, needs } = input;
    const [h, w] = [Math.floor(size[0] / strideH), Math.floor(size[1] / strideW)];

    const queries = this.#withNorm({ size: [h, w], needs }, attn.query.norm?.weight);
    const q = this.#conv(attn.query.proj, queries);
    const keyed = [attn.key, attn.value].map((path) => {
      const reduced = path.downConv ? this.#conv(path.downConv, input) : input;
      return this.#conv(path.proj, this.#withNorm(reduced, path.norm?.weight));
    });
    const [k = input, v = input] = keyed;
    const pairs = this.images * q.size[0] * q.size[1] * k.size[0] * k.size[1];
    const outChs = attn.query.proj.weight.shape[0] ?? 0; // heads x their size
    const scores = this.products.ofPairs(pairs * outChs, q.needs, k.needs);
    const valueChs = (outChs / args.keyDim) * args.valueDim;
    const attended = this.products.ofPairs(pairs * valueChs, scores, v.needs);

    const back: Features = { size: [h * strideH, w * strideW], needs: attended };
    const output = this.#conv(attn.output.proj, back);
    return this.#joined(this.#withNorm(output, layerScale?.gamma), placed);
  }

  #conv(conv: Conv2d, { size, needs }: Features): Features {
    const out = conv.outSize(size);
    const places = this.images * out[0] * out[1];
    return { size: out, needs: this.products.convolution(conv.weight, conv.bias, places, needs) };
  }

  /** Factors of the channels, from the mean over all positions. */
  #squeezed({ convReduce, convExpand }: SqueezeExcite, { size, needs }: Features): Features {
    const { needs: gate } = this.#conv(convExpand, this.#conv(convReduce, { size: [1, 1], needs }));
    return { size, needs: needs || gate };
  }

  #withNorm({ size, needs }: Features, weight: Conv2d['bias']): Features {
    return { size, needs: needs || this.products.learning.has(weight) };
  }

  /** Whether or not the block has a skip: what its result is made of needs a gradient if its input does. */
  #joined(y: Features, { needs }: Features): Features {
    return { size: y.size, needs: y.needs || needs };
  }
}
