// A layer of the audio tower, a conformer (arXiv:2005.08100): half a feed-forward, attention, light convolution, half a
// feed-forward, a norm.
//
// The norms of the light convolution take the configuration's epsilon, the others a fixed one, as in the reference.

import { Linear, Module, RmsNorm, parameter } from '../../nn/index.js';
import { type Tensor, conv2d, empty, op } from '../../tensor/index.js';
import { AudioAttention, type AudioAttentionContext } from './audio-attention.js';
import type { AudioConfig } from './audio-config.js';

const silu = op('aten::silu');
const glu = op('aten::glu');

const EPS = 1e-6;
const LARGEST_FLOAT16 = 65_504;

export interface ConformerContext extends AudioAttentionContext {
  /** [B, T, 1] of the activations' dtype: 1 on real frames, 0 on padding */
  readonly real: Tensor;
}

export class ConformerBlock extends Module {
  readonly ffwLayerStart: ConformerFeedForward;
  readonly attention: ConformerAttention;
  readonly lconv1d: LightConv;
  readonly ffwLayerEnd: ConformerFeedForward;
  readonly norm: RmsNorm;

  constructor(private readonly config: AudioConfig) {
    super();
    this.ffwLayerStart = new ConformerFeedForward(config);
    this.attention = new ConformerAttention(config);
    this.lconv1d = new LightConv(config);
    this.ffwLayerEnd = new ConformerFeedForward(config);
    this.norm = new RmsNorm(config.hiddenSize, EPS);
  }

  /** @param x [B, T, hidden] @returns the same shape; padding's rows mean nothing */
  forward(x: Tensor, context: ConformerContext): Tensor {
    x = this.ffwLayerStart.forward(x);
    x = this.attention.forward(x, context);
    x = this.lconv1d.forward(x.mul(context.real));
    x = this.ffwLayerEnd.forward(x);
    return this.norm.forward(clip(x, this.config));
  }
}

export class ConformerFeedForward extends Module {
  readonly preLayerNorm: RmsNorm;
  readonly ffwLayer_1: Linear;
  readonly ffwLayer_2: Linear;
  readonly postLayerNorm: RmsNorm;

  constructor(private readonly config: AudioConfig) {
    super();
    const { hiddenSize: size } = config;
    this.preLayerNorm = new RmsNorm(size, EPS);
    this.ffwLayer_1 = new Linear(size, 4 * size);
    this.ffwLayer_2 = new Linear(4 * size, size);
    this.postLayerNorm = new RmsNorm(size, EPS);
  }

  forward(x: Tensor): Tensor {
    const wide = silu(this.ffwLayer_1.forward(this.preLayerNorm.forward(clip(x, this.config))));
    const result = this.postLayerNorm.forward(clip(this.ffwLayer_2.forward(wide), this.config));
    return x.add(result.mul(this.config.confResidualWeight));
  }
}

export class ConformerAttention extends Module {
  readonly preAttnNorm: RmsNorm;
  readonly attn: AudioAttention;
  readonly post: Linear;
  readonly postNorm: RmsNorm;

  constructor(private readonly config: AudioConfig) {
    super();
    const { hiddenSize: size } = config;
    this.preAttnNorm = new RmsNorm(size, EPS);
    this.attn = new AudioAttention(config);
    this.post = new Linear(size, size);
    this.postNorm = new RmsNorm(size, EPS);
  }

  forward(x: Tensor, context: AudioAttentionContext): Tensor {
    const attended = this.attn.forward(this.preAttnNorm.forward(clip(x, this.config)), context);
    return x.add(this.postNorm.forward(clip(this.post.forward(attended), this.config)));
  }
}

/** A gate, then a causal convolution of each channel by itself (arXiv:1901.10430). */
export class LightConv extends Module {
  readonly preLayerNorm: RmsNorm;
  readonly linearStart: Linear;
  readonly depthwiseConv1d: CausalDepthwiseConv;
  readonly convNorm: RmsNorm;
  readonly linearEnd: Linear;

  constructor(private readonly config: AudioConfig) {
    super();
    const { hiddenSize: size, rmsNormEps } = config;
    this.preLayerNorm = new RmsNorm(size, rmsNormEps);
    this.linearStart = new Linear(size, 2 * size);
    this.depthwiseConv1d = new CausalDepthwiseConv(size, config.confConvKernelSize);
    this.convNorm = new RmsNorm(size, rmsNormEps);
    this.linearEnd = new Linear(size, size);
  }

  forward(x: Tensor): Tensor {
    const gated = glu(this.linearStart.forward(this.preLayerNorm.forward(x)), -1);
    const convolved = clip(this.depthwiseConv1d.forward(gated), this.config);
    return this.linearEnd.forward(silu(this.convNorm.forward(convolved))).add(x);
  }
}

/** Each frame's channels from the same ones of that frame and those before it. */
export class CausalDepthwiseConv extends Module {
  /** [channels, 1, kernel] */
  weight: Tensor;

  constructor(
    private readonly channels: number,
    private readonly kernelSize: number,
  ) {
    super();
    this.weight = parameter(empty([channels, 1, kernelSize]));
  }

  /** @param x [B, T, channels] @returns the same shape */
  forward(x: Tensor): Tensor {
    const [, length = 1] = x.shape;
    // As an image of one row in channels-last memory, padded at both ends: what lies past the last frame is left off.
    const image_BD1T = x.unsqueeze(1).permute([0, 3, 1, 2]);
    const convolved = conv2d(image_BD1T, this.weight.unsqueeze(2), undefined, {
      padding: [0, this.kernelSize - 1],
      groups: this.channels,
    });
    return convolved.permute([0, 2, 3, 1]).squeeze(1).narrow(1, 0, length);
  }
}

/** The reference's "gradient clipping", which clips activations. */
function clip(x: Tensor, { gradientClipping }: AudioConfig): Tensor {
  const limit = x.dtype === 'float16' ? Math.min(gradientClipping, LARGEST_FLOAT16) : gradientClipping;
  return x.clamp({ min: -limit, max: limit });
}
