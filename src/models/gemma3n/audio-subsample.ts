// The audio tower's first part: two strided convolutions over time and frequency, each with a norm whose statistics run
// over time, so that a frame's value never depends on later ones than its convolution sees.
//
// The norm counts padding as if it were sound, as the reference does: later frames cannot change earlier ones, and those
// that are padding are masked from here on. The convolutions see a few frames past the last real one; see `AudioTower`.
//
// Shapes: B clips, C channels, T frames, F frequencies.

import { Linear, Module, parameter } from '../../nn/index.js';
import { type Tensor, conv2d, empty, padConstant, tensor } from '../../tensor/index.js';
import { type AudioConfig, type Extent, FREQUENCY_PADDING, binsAfter } from './audio-config.js';

export class SubSampleConvProjection extends Module {
  readonly conv_0: ConvBlock;
  readonly conv_1: ConvBlock;
  readonly inputProjLinear: Linear;

  constructor(config: AudioConfig) {
    super();
    const [, bins] = binsAfter(config);
    const [, channels] = config.sscpConvChannelSize;
    this.conv_0 = new ConvBlock(config, 0);
    this.conv_1 = new ConvBlock(config, 1);
    this.inputProjLinear = new Linear(channels * bins, config.hiddenSize);
  }

  /** @param mel [B, T, melBins] @returns [B, ceil(ceil(T / stride) / stride), hidden] */
  forward(mel: Tensor): Tensor {
    const x_BTFC = this.conv_1.forward(this.conv_0.forward(mel.unsqueeze(-1)));
    return this.inputProjLinear.forward(x_BTFC.flatten(2, 3));
  }
}

/** Convolution, cumulative norm, ReLU. Channels come last, as in memory: the norm and the projection read neighbours. */
class ConvBlock extends Module {
  readonly conv: ReverseCausalConv;
  readonly norm: CumulativeGroupNorm;

  constructor(config: AudioConfig, index: 0 | 1) {
    super();
    const [first] = config.sscpConvChannelSize;
    const outChs = config.sscpConvChannelSize[index];
    const { [index]: kernel } = config.sscpConvKernelSize;
    this.conv = new ReverseCausalConv(
      index === 0 ? 1 : first,
      outChs,
      kernel,
      config.sscpConvStrideSize[index],
    );
    this.norm = new CumulativeGroupNorm(outChs, config.sscpConvGroupNormEps);
  }

  /** @param x [B, T, F, in] @returns [B, T / stride, F / stride, out] */
  forward(x: Tensor): Tensor {
    return this.norm.forward(this.conv.forward(x)).relu();
  }
}

/** A frame's result sees that frame and the kernel's reach after it. */
export class ReverseCausalConv extends Module {
  /** [out, in, time, frequency] */
  weight: Tensor;

  constructor(
    inChs: number,
    outChs: number,
    private readonly kernel: Extent,
    private readonly stride: Extent,
  ) {
    super();
    this.weight = parameter(empty([outChs, inChs, ...kernel]));
  }

  /** @param x [B, T, F, in] @returns [B, T / stride, F / stride, out] */
  forward(x: Tensor): Tensor {
    const behind = this.kernel[0] - 1;
    const padded = behind === 0 ? x : padConstant(x, [0, 0, 0, 0, 0, behind]);
    const x_BCTF = conv2d(padded.permute([0, 3, 1, 2]), this.weight, undefined, {
      stride: this.stride,
      padding: [0, FREQUENCY_PADDING],
    });
    return x_BCTF.permute([0, 2, 3, 1]).contiguous();
  }
}

/** Group norm of one group, whose statistics at frame t are those of frames 0 ... t. The variance is the running mean of
 *  each frame's squared distance from the mean at that frame, as the reference has it. float32 inside. */
export class CumulativeGroupNorm extends Module {
  /** [channels] */
  weight: Tensor;

  constructor(
    channels: number,
    private readonly eps: number,
  ) {
    super();
    this.weight = parameter(empty([channels]));
  }

  /** @param x [B, T, F, C] @returns the same shape and dtype */
  forward(x: Tensor): Tensor {
    const [, length = 1, bins = 1, channels = 1] = x.shape;
    const wide = x.dtype === 'float64' ? x : x.to('float32');
    const seen = Float64Array.from({ length }, (_, t) => (t + 1) * bins * channels);
    const seen_T11 = tensor(seen, [length, 1, 1], wide.dtype, x.device);
    const running = (sums: Tensor): Tensor => sums.cumsum(1).div(seen_T11);

    const centred = wide.sub(running(wide.sum([2, 3], true)));
    const variance = running(centred.square().sum([2, 3], true));
    const scale = this.weight.to(wide.dtype);
    return centred.mul(variance.add(this.eps).rsqrt()).mul(scale).to(x.dtype);
  }
}
