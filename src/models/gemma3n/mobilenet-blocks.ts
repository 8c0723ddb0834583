// The three kinds of blocks of MobileNet-V5. Papers: EfficientNet-EdgeTPU (edge residual); MobileNetV4,
// https://arxiv.org/abs/2404.10518 (universal inverted residual, mobile multi-query attention).

import { Module } from '../../nn/module.js';
import { type Tensor, op, scaledDotProductAttention } from '../../tensor/index.js';
import {
  type EdgeResidualArgs,
  type MobileAttentionArgs,
  type UniversalInvertedResidualArgs,
  expandedChs,
} from './mobilenet-args.js';
import {
  type ActivationName,
  Conv2d,
  ConvNormAct,
  LayerScale2d,
  type PadType,
  RmsNorm2d,
  RmsNormAct2d,
  SqueezeExcite,
  padSame,
} from './mobilenet-layers.js';
import type { PlannedBlock } from './mobilenet-plan.js';

/** What the blocks of one tower have in common. */
export interface BlockStyle {
  readonly padType: PadType;
  readonly act: ActivationName;
  /** undefined: no layer scale. */
  readonly layerScaleInitValue: number | undefined;
  readonly seFromExp: boolean;
}

export type Block = EdgeResidual | UniversalInvertedResidual | MobileAttention;

export function createBlock({ args, inChs, dilation }: PlannedBlock, tower: BlockStyle): Block {
  const style = args.actLayer ? { ...tower, act: args.actLayer } : tower;
  switch (args.blockType) {
    case 'er':
      return new EdgeResidual(args, inChs, dilation, style);
    case 'uir':
      return new UniversalInvertedResidual(args, inChs, dilation, style);
    case 'mqa':
      return new MobileAttention(args, inChs, dilation, style);
  }
}

/** Convolution that expands and strides, then a pointwise projection. */
export class EdgeResidual extends Module {
  readonly convExp: Conv2d;
  readonly bn1: RmsNormAct2d;
  readonly se: SqueezeExcite | undefined;
  readonly convPwl: Conv2d;
  readonly bn2: RmsNormAct2d;
  private readonly hasSkip: boolean;

  constructor(args: EdgeResidualArgs, inChs: number, dilation: number, style: BlockStyle) {
    super();
    const { outChs, stride, groupSize } = args;
    const { padType, act } = style;
    const midChs = expandedChs(args, inChs);
    const groups = groupSize === 0 ? 1 : midChs / groupSize;
    this.convExp = new Conv2d(inChs, midChs, args.expKernelSize, { stride, dilation, groups, padType });
    this.bn1 = new RmsNormAct2d(midChs, act);
    this.se = squeezeExcite(args, midChs, style);
    this.convPwl = new Conv2d(midChs, outChs, args.pwKernelSize, { padType });
    this.bn2 = new RmsNormAct2d(outChs);
    this.hasSkip = inChs === outChs && stride === 1 && !args.noskip;
  }

  forward(x: Tensor): Tensor {
    let y = this.bn1.forward(this.convExp.forward(x));
    if (this.se) y = this.se.forward(y);
    y = this.bn2.forward(this.convPwl.forward(y));
    return this.hasSkip ? y.add(x) : y;
  }
}

/** Depthwise, pointwise expansion, depthwise, pointwise projection, depthwise: each depthwise part optional. */
export class UniversalInvertedResidual extends Module {
  readonly dwStart: ConvNormAct | undefined;
  readonly pwExp: ConvNormAct;
  readonly dwMid: ConvNormAct | undefined;
  readonly se: SqueezeExcite | undefined;
  readonly pwProj: ConvNormAct;
  readonly dwEnd: ConvNormAct | undefined;
  readonly layerScale: LayerScale2d | undefined;
  private readonly hasSkip: boolean;

  constructor(args: UniversalInvertedResidualArgs, inChs: number, dilation: number, style: BlockStyle) {
    super();
    const { outChs, stride, dwKernelSizeStart: start, dwKernelSizeMid: mid, dwKernelSizeEnd: end } = args;
    const { padType, act, layerScaleInitValue } = style;
    const midChs = expandedChs(args, inChs);
    const depthwise = (channels: number, kernel: number, carriesStride: boolean, act?: ActivationName) => {
      if (kernel === 0) return undefined;
      const groups = args.groupSize === 0 ? 1 : channels / args.groupSize;
      const options = { stride: carriesStride ? stride : 1, dilation, groups, padType, act };
      return new ConvNormAct(channels, channels, kernel, options);
    };

    this.dwStart = depthwise(inChs, start, mid === 0);
    this.pwExp = new ConvNormAct(inChs, midChs, 1, { act });
    this.dwMid = depthwise(midChs, mid, true, act);
    this.se = squeezeExcite(args, midChs, style);
    this.pwProj = new ConvNormAct(midChs, outChs, 1, {});
    this.dwEnd = depthwise(outChs, end, start === 0 && mid === 0);
    this.layerScale =
      layerScaleInitValue === undefined ? undefined : new LayerScale2d(outChs, layerScaleInitValue);
    this.hasSkip = inChs === outChs && stride === 1 && !args.noskip;
  }

  forward(x: Tensor): Tensor {
    let y = x;
    if (this.dwStart) y = this.dwStart.forward(y);
    y = this.pwExp.forward(y);
    if (this.dwMid) y = this.dwMid.forward(y);
    if (this.se) y = this.se.forward(y);
    const scale = this.layerScale?.gamma;
    y = this.pwProj.forward(y, this.dwEnd ? undefined : scale);
    if (this.dwEnd) y = this.dwEnd.forward(y, scale);
    return this.hasSkip ? y.add(x) : y;
  }
}

/** Norm, multi-query attention over positions, layer scale. */
export class MobileAttention extends Module {
  readonly convCpeDw: Conv2d | undefined;
  readonly norm: RmsNormAct2d;
  readonly attn: MultiQueryAttention2d;
  readonly layerScale: LayerScale2d | undefined;
  private readonly hasSkip: boolean;

  constructor(args: MobileAttentionArgs, inChs: number, dilation: number, style: BlockStyle) {
    super();
    const { outChs, layerScaleInitValue } = { ...args, ...style };
    this.convCpeDw = args.useCpe
      ? new Conv2d(inChs, inChs, args.cpeDwKernelSize, { dilation, groups: inChs, bias: true })
      : undefined;
    this.norm = new RmsNormAct2d(inChs);
    this.attn = new MultiQueryAttention2d(args, inChs, dilation, style.padType);
    this.layerScale =
      layerScaleInitValue === undefined ? undefined : new LayerScale2d(outChs, layerScaleInitValue);
    this.hasSkip = inChs === outChs && args.stride === 1 && !args.noskip;
  }

  forward(x: Tensor): Tensor {
    const input = this.convCpeDw ? x.add(this.convCpeDw.forward(x)) : x;
    let y = this.attn.forward(this.norm.forward(input));
    if (this.layerScale) y = this.layerScale.forward(y);
    return this.hasSkip ? y.add(input) : y;
  }
}

const avgPool = op('aten::avg_pool2d');
const upsampleBilinear = op('aten::upsample_bilinear2d');

/** Every query head of every position attends to one key and value head, reduced by a strided convolution.
 *  B images, H x W positions, h heads, k their size. */
export class MultiQueryAttention2d extends Module {
  readonly query: QueryPath;
  readonly key: KeyValuePath;
  readonly value: KeyValuePath;
  readonly output: Projection;
  private readonly keyDim: number;
  private readonly queryStrides: readonly [number, number];

  constructor(args: MobileAttentionArgs, inChs: number, dilation: number, padType: PadType) {
    super();
    const { keyDim, valueDim } = args;
    const numHeads = args.numHeads ?? inChs / keyDim;
    this.keyDim = keyDim;
    this.queryStrides = args.queryStrides;
    this.query = new QueryPath(inChs, numHeads * keyDim, args.queryStrides, padType);
    this.key = new KeyValuePath(inChs, keyDim, args, dilation, padType);
    this.value = new KeyValuePath(inChs, valueDim, args, dilation, padType);
    this.output = new Projection(numHeads * valueDim, args.outChs);
  }

  forward(x: Tensor): Tensor {
    const [B = 0, , H = 0, W = 0] = x.shape;
    const [strideH, strideW] = this.queryStrides;
    const [h, w] = [Math.floor(H / strideH), Math.floor(W / strideW)];

    // One key head for all: the heads of a position are as good as more positions. In channels-last memory these
    // reshapes copy nothing.
    const q = lastChannels(this.query.forward(x)).reshape([B, 1, -1, this.keyDim]);
    const k = lastChannels(this.key.forward(x)).flatten(1, 2).unsqueeze(1);
    const v = lastChannels(this.value.forward(x)).flatten(1, 2).unsqueeze(1);
    const attended = scaledDotProductAttention(q, k, v);

    let y = attended.reshape([B, h, w, -1]).permute([0, 3, 1, 2]);
    if (strideH > 1 || strideW > 1) y = upsampleBilinear(y, [h * strideH, w * strideW], false);
    return this.output.proj.forward(y);
  }
}

function lastChannels(x: Tensor): Tensor {
  return x.permute([0, 2, 3, 1]);
}

class Projection extends Module {
  readonly proj: Conv2d;

  constructor(inChs: number, outChs: number) {
    super();
    this.proj = new Conv2d(inChs, outChs, 1);
  }
}

/** Pooled by the query strides where there are any. */
class QueryPath extends Module {
  readonly norm: RmsNorm2d | undefined;
  readonly proj: Conv2d;

  constructor(
    inChs: number,
    outChs: number,
    private readonly strides: readonly [number, number],
    private readonly padType: PadType,
  ) {
    super();
    this.norm = strides[0] > 1 || strides[1] > 1 ? new RmsNorm2d(inChs) : undefined;
    this.proj = new Conv2d(inChs, outChs, 1);
  }

  forward(x: Tensor): Tensor {
    if (!this.norm) return this.proj.forward(x);
    const pooled = avgPool(
      this.padType === 'same' ? padSame(x, this.strides, this.strides) : x,
      this.strides,
    );
    return this.proj.forward(this.norm.forward(pooled));
  }
}

/** Reduced by a strided depthwise convolution where keys and values have a stride. */
class KeyValuePath extends Module {
  readonly downConv: Conv2d | undefined;
  readonly norm: RmsNorm2d | undefined;
  readonly proj: Conv2d;

  constructor(inChs: number, outChs: number, args: MobileAttentionArgs, dilation: number, padType: PadType) {
    super();
    const { kvStride: stride, dwKernelSize } = args;
    if (stride > 1) {
      this.downConv = new Conv2d(inChs, inChs, dwKernelSize, { stride, dilation, groups: inChs, padType });
      this.norm = new RmsNorm2d(inChs);
    }
    this.proj = new Conv2d(inChs, outChs, 1);
  }

  forward(x: Tensor): Tensor {
    if (!this.downConv || !this.norm) return this.proj.forward(x);
    return this.proj.forward(this.norm.forward(this.downConv.forward(x)));
  }
}

function squeezeExcite(
  args: EdgeResidualArgs | UniversalInvertedResidualArgs,
  midChs: number,
  style: BlockStyle,
): SqueezeExcite | undefined {
  if (args.seRatio === 0) return undefined;
  const ratio = style.seFromExp ? args.seRatio : args.seRatio / args.expRatio;
  return new SqueezeExcite(midChs, roundHalfEven(midChs * ratio), style.act);
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
