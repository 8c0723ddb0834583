// The audio tower, a Universal Speech Model (arXiv:2303.01037): sub-sampling convolutions, conformer layers, one frame of
// several kept.

import { ModelError } from '../../errors.js';
import { Module, segment } from '../../nn/index.js';
import { type Tensor, ones, op, tensor, where } from '../../tensor/index.js';
import { attentionContext } from './audio-attention.js';
import { type AudioConfig, subSampling } from './audio-config.js';
import { ConformerBlock } from './audio-conformer.js';
import { SubSampleConvProjection } from './audio-subsample.js';

const slice = op('aten::slice.Tensor');

export interface AudioFrames {
  /** [clips, frames, hidden]; 0 on padding */
  readonly features: Tensor;
  /** bool [clips, frames]; true on real frames */
  readonly mask: Tensor;
}

export class AudioTower extends Module {
  readonly subsampleConvProjection: SubSampleConvProjection;
  readonly conformer: ConformerBlock[];

  constructor(readonly config: AudioConfig) {
    super();
    this.subsampleConvProjection = new SubSampleConvProjection(config);
    this.conformer = Array.from({ length: config.confNumHiddenLayers }, () => new ConformerBlock(config));
  }

  /** @param inputFeatures [clips, inputFrames, melBins], log-mel; converted to the tower's dtype
   *  @param inputFeaturesMask [clips, inputFrames], bool or int: true on real frames; by default all are real
   *  @returns ceil(ceil(ceil(inputFrames / stride) / stride) / reduction) frames a clip: by default one of 16
   *  @throws {ModelError} when a shape is another, or a clip has no real frame */
  forward(inputFeatures: Tensor, inputFeaturesMask?: Tensor): AudioFrames {
    const { config } = this;
    checkShapes(config, inputFeatures, inputFeaturesMask);
    const { device, weight } = this.subsampleConvProjection.inputProjLinear;
    const { dtype } = weight;
    const [clips = 0, frames = 0] = inputFeatures.shape;
    const realFrames = (inputFeaturesMask ?? ones([clips, frames], { dtype: 'bool' })).to('bool');
    const onHost = { real: realFrames.toTypedArray() as Uint8Array, clips, frames };
    refuseEmptyClips(onHost);
    const input = withoutPadding(inputFeatures.to(device).to(dtype), onHost, config);

    let x = segment('audio', input, (given) => this.subsampleConvProjection.forward(given));
    const mask = slice(realFrames.to(device), 1, 0, undefined, subSampling(config));
    const context = { ...attentionContext(config, mask, x), real: mask.unsqueeze(-1).to(dtype) };

    for (const block of this.conformer) {
      // A layer's own tensors go with it, its input too: together they would be a gigabyte or two a clip.
      const y = segment('audio', { x, context }, (given) => block.forward(given.x, given.context));
      x.dispose();
      x = y;
    }

    const kept = (frames: Tensor): Tensor => slice(frames, 1, 0, undefined, config.confReductionFactor);
    const keptMask = kept(mask);
    const features = segment('audio', { x, keptMask }, (given) =>
      kept(given.x).maskedFill(given.keptMask.logicalNot().unsqueeze(-1), 0),
    );
    return { features, mask: keptMask };
  }
}

/** Of every clip, which frames are real. [clips, frames] */
interface HostMask {
  readonly real: Uint8Array;
  readonly clips: number;
  readonly frames: number;
}

/** Zeros for padding that no real frame's convolutions see, and for what is no number in padding that one does. Neither
 *  changes a real frame's result where the reference has one; left in, 0 x NaN would reach all frames through attention.
 *  Padding within the convolutions' sight (by default 6 frames past the last one kept) counts, as in the reference. */
function withoutPadding(x: Tensor, { real, clips, frames }: HostMask, config: AudioConfig): Tensor {
  if (real.every((value) => value !== 0)) return x;
  const step = subSampling(config);
  const [[kernel], [nextKernel]] = config.sscpConvKernelSize;
  const [[stride]] = config.sscpConvStrideSize;
  const sight = kernel + stride * (nextKernel - 1);
  const seen = new Uint8Array(real.length);
  for (let clip = 0; clip < clips; clip++) {
    const row = real.subarray(clip * frames, (clip + 1) * frames);
    let last = Math.floor((frames - 1) / step) * step;
    while (last >= 0 && row[last] === 0) last -= step;
    if (last >= 0) seen.fill(1, clip * frames, clip * frames + Math.min(frames, last + sight));
  }
  const bools = (values: Uint8Array): Tensor => tensor(values, [clips, frames, 1], 'bool', x.device);
  return where(bools(seen).logicalAnd(bools(real).logicalOr(x.isfinite())), x, 0);
}

function refuseEmptyClips({ real, clips, frames }: HostMask): void {
  for (let clip = 0; clip < clips; clip++) {
    if (real.subarray(clip * frames, (clip + 1) * frames).some((value) => value !== 0)) continue;
    throw new ModelError({
      where: `inputFeaturesMask: clip ${clip}`,
      expected: 'at least one real frame',
      received: 'padding alone',
      remedy: 'leave out clips without sound, or check that the mask is true on real frames',
    });
  }
}

function checkShapes({ inputFeatSize }: AudioConfig, features: Tensor, mask: Tensor | undefined): void {
  const { shape } = features;
  if (shape.length !== 3 || shape[2] !== inputFeatSize || shape.includes(0)) {
    throw new ModelError({
      where: 'inputFeatures',
      expected: `[clips, frames, ${inputFeatSize}]`,
      received: `[${shape.join(', ')}]`,
      remedy: 'prepare the clips with the processor of this model',
    });
  }
  if (!mask || (mask.ndim === 2 && mask.shape[0] === shape[0] && mask.shape[1] === shape[1])) return;
  throw new ModelError({
    where: 'inputFeaturesMask',
    expected: `[${shape[0]}, ${shape[1]}], as the features`,
    received: `[${mask.shape.join(', ')}]`,
    remedy: 'give true for every real frame and false for padding',
  });
}
