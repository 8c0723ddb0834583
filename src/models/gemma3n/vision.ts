// The image tower in its place in the model: `vision_tower.timm_model` in checkpoints.

import { ModelError } from '../../errors.js';
import { Module, segment } from '../../nn/index.js';
import type { Tensor } from '../../tensor/index.js';
import { MobileNetV5Encoder } from './mobilenet.js';
import type { VisionConfig } from './vision-config.js';

export class VisionTower extends Module {
  readonly timmModel: MobileNetV5Encoder;

  /** @throws {ConfigError} when `config.tower` cannot be built */
  constructor(readonly config: VisionConfig) {
    super();
    this.timmModel = new MobileNetV5Encoder(config.tower);
  }

  /** Soft tokens an image: the positions of the fused features. */
  get numSoftTokens(): number {
    const [height, width] = this.config.tower.msfaOutputResolution;
    return height * width;
  }

  /** Features of images of any size, rows first.
   *  @param pixelValues [images, 3, height, width], as the processor scales them; converted to the tower's dtype
   *  @returns [images, softTokens, 2048]
   *  @throws {ModelError} when the shape is another */
  forward(pixelValues: Tensor): Tensor {
    const { inChans } = this.config.tower;
    const { shape } = pixelValues;
    if (shape.length !== 4 || shape[1] !== inChans || shape.includes(0)) {
      throw new ModelError({
        where: 'pixelValues',
        expected: `[images, ${inChans}, height, width]`,
        received: `[${shape.join(', ')}]`,
        remedy: 'prepare the images with the processor of this model',
      });
    }
    const { dtype } = this.timmModel.convStem.conv.weight;
    const features = this.timmModel.forward(pixelValues.to(dtype));
    return segment('vision', features, (x) => x.permute([0, 2, 3, 1]).flatten(1, 2));
  }
}
