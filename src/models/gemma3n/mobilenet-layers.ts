// The small layers of MobileNet-V5, named as timm names them. Tensors are [images, channels, height, width] in
// channels-last memory: depthwise convolutions run 2-3 times faster so on a CPU, and the norm over channels reads
// neighbours. Weights start uninitialised: a checkpoint or `initialiseVision` fills them.

import { Module, type QuantisedWeight, parameter, placeOfNew, refuseLearning } from '../../nn/index.js';
import {
  type Tensor,
  conv2d,
  currentDefaults,
  empty,
  gelu,
  op,
  padConstant,
  rmsNorm,
  scope,
} from '../../tensor/index.js';

const EPS = 1e-6;

/** timm's names. 'gelu' is exact, 'gelu_tanh' the tower's default. */
export const ACTIVATIONS = [
  'gelu_tanh',
  'gelu',
  'relu',
  'relu6',
  'silu',
  'swish',
  'hard_swish',
  'mish',
  'sigmoid',
  'tanh',
  'identity',
] as const;
export type ActivationName = (typeof ACTIVATIONS)[number];

const relu6 = op('aten::relu6');
const silu = op('aten::silu');
const hardSwish = op('aten::hardswish');
const mish = op('aten::mish');

const activations: Readonly<Record<ActivationName, (x: Tensor) => Tensor>> = {
  gelu_tanh: (x) => gelu(x, 'tanh'),
  gelu: (x) => gelu(x),
  relu: (x) => x.relu(),
  relu6: (x) => relu6(x),
  silu: (x) => silu(x),
  swish: (x) => silu(x),
  hard_swish: (x) => hardSwish(x),
  mish: (x) => mish(x),
  sigmoid: (x) => x.sigmoid(),
  tanh: (x) => x.tanh(),
  identity: (x) => x,
};

/** 'same': as TensorFlow pads, the odd pixel at the right and bottom; '': half of kernel and stride on every side;
 *  'valid': none. */
export type PadType = 'same' | 'valid' | '';

export interface Conv2dOptions {
  readonly stride?: number;
  readonly dilation?: number;
  readonly groups?: number;
  readonly bias?: boolean;
  readonly padType?: PadType;
}

/** Convolution with square kernels. */
export class Conv2d extends Module {
  /** [out, in / groups, kernel, kernel] */
  weight: Tensor;
  /** Instead of it, where it is frozen and quantised: `weight` has no memory then. */
  quantised: QuantisedWeight | undefined;
  /** [out] */
  bias: Tensor | undefined;
  private readonly options: { stride: number; dilation: number; groups: number; padding: number };
  private readonly padsUnevenly: boolean;
  readonly #place = currentDefaults();

  constructor(inChs: number, outChs: number, kernelSize: number, options: Conv2dOptions = {}) {
    super();
    const { stride = 1, dilation = 1, groups = 1, bias = false, padType = '' } = options;
    const reach = dilation * (kernelSize - 1);
    this.padsUnevenly = padType === 'same' && !(stride === 1 && reach % 2 === 0);
    const padding = this.padsUnevenly || padType === 'valid' ? 0 : (stride - 1 + reach) >> 1;
    this.options = { stride, dilation, groups, padding };
    this.weight = parameter(empty([outChs, inChs / groups, kernelSize, kernelSize], placeOfNew('matrices')));
    this.bias = bias ? parameter(empty([outChs])) : undefined;
  }

  /** [height, width] of the result. @param size of the input */
  outSize(size: readonly [number, number]): readonly [number, number] {
    const { stride, padding } = this.options;
    const along = (length: number): number =>
      this.padsUnevenly
        ? Math.ceil(length / stride)
        : Math.floor((length + 2 * padding - this.#window) / stride) + 1;
    return [along(size[0]), along(size[1])];
  }

  /** What the kernel spans, dilated. */
  get #window(): number {
    return ((this.weight.shape[3] ?? 1) - 1) * this.options.dilation + 1;
  }

  /** Where it computes. */
  get device(): string {
    const { device } = this.weight;
    return device === 'meta' ? this.#place.device : device;
  }

  get groups(): number {
    return this.options.groups;
  }

  forward(x: Tensor): Tensor {
    return scope(() => {
      const { quantised } = this;
      if (quantised) refuseLearning(this.weight);
      // A kernel's numbers are there while it computes.
      const weight = quantised ? quantised.dequantised() : this.weight;
      return conv2d(this.#padded(x), weight, this.bias, this.options);
    });
  }

  /** Takes codes and scales for the weight, whose memory is freed. They belong to this module from now on. */
  useQuantised(quantised: QuantisedWeight): void {
    this.weight.dispose();
    this.weight = quantised.placeholder();
    this.quantised = quantised;
  }

  /** Memory for a weight that has none yet; uninitialised. */
  allocate(): void {
    if (this.quantised || this.weight.device !== 'meta') return;
    const { shape } = this.weight;
    this.weight.dispose();
    this.weight = parameter(empty(shape, this.#place));
  }

  #padded(x: Tensor): Tensor {
    if (!this.padsUnevenly) return x;
    const { stride } = this.options;
    const window = this.#window;
    return padSame(x, [window, window], [stride, stride]);
  }
}

/** Pads with zeros so that a window at every stride begins inside the image and ends inside the padding.
 *  Each pair is [height, width]. */
export function padSame(
  x: Tensor,
  window: readonly [number, number],
  stride: readonly [number, number],
): Tensor {
  const needed = (size: number, window: number, stride: number): number =>
    Math.max((Math.ceil(size / stride) - 1) * stride + window - size, 0);
  const [, , height = 0, width = 0] = x.shape;
  const down = needed(height, window[0], stride[0]);
  const right = needed(width, window[1], stride[1]);
  if (down === 0 && right === 0) return x;
  return padConstant(x, [right >> 1, right - (right >> 1), down >> 1, down - (down >> 1)]);
}

/** x / sqrt(mean(x^2) + 1e-6) * weight over channels, in float32 inside. */
export class RmsNorm2d extends Module {
  /** [channels] */
  weight: Tensor;

  constructor(channels: number) {
    super();
    this.weight = parameter(empty([channels]));
  }

  forward(x: Tensor): Tensor {
    return normChannels(x, this.weight);
  }
}

function normChannels(x: Tensor, weight: Tensor, act?: 'gelu_tanh'): Tensor {
  return rmsNorm(x.permute([0, 2, 3, 1]), weight, EPS, act).permute([0, 3, 1, 2]);
}

/** RmsNorm2d, then the activation. */
export class RmsNormAct2d extends RmsNorm2d {
  constructor(
    channels: number,
    readonly act: ActivationName = 'identity',
  ) {
    super(channels);
  }

  /** @param scale multiplies the norm's weight: a layer scale that follows costs no pass of its own */
  override forward(x: Tensor, scale?: Tensor): Tensor {
    const weight = scale ? this.weight.mul(scale) : this.weight;
    if (this.act === 'gelu_tanh') return normChannels(x, weight, this.act);
    return activations[this.act](normChannels(x, weight));
  }
}

/** Convolution, norm, activation. */
export class ConvNormAct extends Module {
  readonly conv: Conv2d;
  readonly bn: RmsNormAct2d;

  constructor(
    inChs: number,
    outChs: number,
    kernelSize: number,
    options: Conv2dOptions & { readonly act?: ActivationName },
  ) {
    super();
    this.conv = new Conv2d(inChs, outChs, kernelSize, options);
    this.bn = new RmsNormAct2d(outChs, options.act);
  }

  /** @param scale see `RmsNormAct2d` */
  forward(x: Tensor, scale?: Tensor): Tensor {
    return this.bn.forward(this.conv.forward(x), scale);
  }
}

/** x * gamma, a factor a channel. */
export class LayerScale2d extends Module {
  /** [channels] */
  gamma: Tensor;

  constructor(
    channels: number,
    readonly initialValue: number,
  ) {
    super();
    this.gamma = parameter(empty([channels]));
  }

  forward(x: Tensor): Tensor {
    return x.mul(this.gamma.view([-1, 1, 1]));
  }
}

/** Channels gated by what the whole image holds of them. */
export class SqueezeExcite extends Module {
  readonly convReduce: Conv2d;
  readonly convExpand: Conv2d;

  constructor(
    channels: number,
    reduced: number,
    private readonly act: ActivationName,
  ) {
    super();
    this.convReduce = new Conv2d(channels, reduced, 1, { bias: true });
    this.convExpand = new Conv2d(reduced, channels, 1, { bias: true });
  }

  forward(x: Tensor): Tensor {
    const squeezed = activations[this.act](this.convReduce.forward(x.mean([2, 3], true)));
    return x.mul(this.convExpand.forward(squeezed).sigmoid());
  }
}
