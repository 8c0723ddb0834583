// MobileNet-V5, the image encoder of Gemma 3n, as timm's `mobilenetv5_300m_enc`: a strided stem, stages of blocks, and
// an adapter that fuses the features of several resolutions into one. Leaves out: timm's classification head.

import { Module, segment } from '../../nn/index.js';
import { type Tensor, cat, op } from '../../tensor/index.js';
import { type Block, UniversalInvertedResidual, createBlock } from './mobilenet-blocks.js';
import { type ActivationName, ConvNormAct, RmsNorm2d } from './mobilenet-layers.js';
import { planTower } from './mobilenet-plan.js';
import { type TowerConfig, VISION_FEATURES } from './vision-config.js';

const upsampleNearest = op('aten::upsample_nearest2d');
const upsampleBilinear = op('aten::upsample_bilinear2d');
const avgPool = op('aten::avg_pool2d');

export class MobileNetV5Encoder extends Module {
  readonly convStem: ConvNormAct;
  readonly blocks: Block[][];
  readonly msfa: MultiScaleFusionAdapter;
  private readonly fusedStages: readonly number[];

  /** @throws {ConfigError} when the arguments make no tower */
  constructor(config: TowerConfig, where?: string) {
    super();
    const plan = planTower(config, where);
    const { padType, layerScaleInitValue, seFromExp } = config;
    const style = { padType, act: config.actLayer, layerScaleInitValue, seFromExp };
    const { act } = style;
    this.fusedStages = plan.fusedStages;

    const stem = { stride: 2, padType, bias: config.stemBias, act };
    this.convStem = new ConvNormAct(config.inChans, plan.stemSize, 3, stem);
    this.blocks = plan.stages.map((stage) => stage.map((block) => createBlock(block, style)));
    this.msfa = new MultiScaleFusionAdapter(plan.fusedChs, config.msfaOutputResolution, act);
  }

  /** @param pixels [images, inChans, height, width]
   *  @returns [images, 2048, ...msfaOutputResolution], in channels-last memory */
  forward(pixels: Tensor): Tensor {
    let x = segment('vision', pixels, (given) => this.convStem.forward(given.contiguous('channelsLast')));

    const last = Math.max(...this.fusedStages);
    const features: Tensor[] = this.fusedStages.includes(0) ? [x] : [];
    for (let stage = 1; stage <= last; stage++) {
      for (const block of this.blocks[stage - 1] ?? []) {
        // A block's own tensors go with it, its input too: together they would be some gigabytes an image.
        const y = segment('vision', x, (given) => block.forward(given));
        if (!features.includes(x)) x.dispose();
        x = y;
      }
      if (this.fusedStages.includes(stage)) features.push(x);
    }

    return segment('vision', features, (given) => this.msfa.forward(given));
  }
}

/** Features of several resolutions, enlarged to the first one's and mixed by a pointwise network, then pooled to the
 *  output's resolution. */
export class MultiScaleFusionAdapter extends Module {
  readonly ffn: UniversalInvertedResidual;
  readonly norm: RmsNorm2d;

  constructor(
    inChs: number,
    private readonly outputResolution: readonly [number, number],
    act: ActivationName,
  ) {
    super();
    const args = {
      blockType: 'uir',
      outChs: VISION_FEATURES,
      stride: 1,
      actLayer: undefined,
      noskip: true,
      dwKernelSizeStart: 0,
      dwKernelSizeMid: 0,
      dwKernelSizeEnd: 0,
      expRatio: 2,
      seRatio: 0,
      groupSize: 1,
    } as const;
    const style = { padType: '', act, layerScaleInitValue: undefined, seFromExp: true } as const;
    this.ffn = new UniversalInvertedResidual(args, inChs, 1, style);
    this.norm = new RmsNorm2d(VISION_FEATURES);
  }

  /** @param features [images, channels, height, width] each, the largest first */
  forward(features: readonly Tensor[]): Tensor {
    const [, , height = 0, width = 0] = features[0]?.shape ?? [];
    const enlarged = features.map((x) => {
      const [, , h = 0, w = 0] = x.shape;
      return h < height || w < width ? upsampleNearest(x, [height, width]) : x;
    });

    const fused = this.ffn.forward(enlarged.length === 1 ? (enlarged[0] as Tensor) : cat(enlarged, 1));

    const [outHeight, outWidth] = this.outputResolution;
    return this.norm.forward(resample(fused, [height, width], [outHeight, outWidth]));
  }
}

/** Mean of whole windows where the sizes divide, bilinear otherwise. */
function resample(
  x: Tensor,
  [height, width]: readonly [number, number],
  [outHeight, outWidth]: readonly [number, number],
): Tensor {
  if (height === outHeight && width === outWidth) return x;
  if (height % outHeight === 0 && width % outWidth === 0) {
    const window = [height / outHeight, width / outWidth];
    return avgPool(x, window, window);
  }
  return upsampleBilinear(x, [outHeight, outWidth], false);
}
