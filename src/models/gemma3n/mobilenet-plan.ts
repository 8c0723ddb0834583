// From a tower's arguments to its blocks in their places: channels rounded, strides turned into dilation beyond
// stride 32, and the features that the fusion adapter takes. Follows timm's EfficientNetBuilder; its quirks matter,
// because checkpoints were trained with them.

import { ConfigError } from '../../errors.js';
import { type BlockArgs, expandedChs, makeDivisible } from './mobilenet-args.js';
import type { TowerConfig } from './vision-config.js';

const OUTPUT_STRIDE = 32;

/** A block in its place: arguments with final channels and stride. */
export interface PlannedBlock {
  readonly args: BlockArgs;
  readonly inChs: number;
  readonly dilation: number;
}

export interface TowerPlan {
  readonly stemSize: number;
  readonly stages: readonly (readonly PlannedBlock[])[];
  /** What the adapter fuses: 0 is the stem's output, n that of stage n. Stages past the last are never run. */
  readonly fusedStages: readonly number[];
  readonly fusedChs: number;
}

/** @throws {ConfigError} where timm would fail, while building or at the first image */
export function planTower(config: TowerConfig, where = 'config.json: vision_config.model_args'): TowerPlan {
  const roundChs = (channels: number): number =>
    config.channelMultiplier === 0 ? channels : makeDivisible(channels * config.channelMultiplier);
  const { blockArgs } = config;
  const stemSize = config.fixStem ? config.stemSize : roundChs(config.stemSize);

  // A feature ends wherever the next stage begins with a stride.
  const features: { stage: number; channels: number }[] = [];
  if (blockArgs[0]?.[0]?.stride !== 1) features.push({ stage: 0, channels: stemSize });

  let inChs = stemSize;
  let totalStride = 2;
  let dilation = 1;
  const stages = blockArgs.map((stage, stageIndex) => {
    const planned = stage.map((given, blockIndex): PlannedBlock => {
      let stride = blockIndex === 0 ? given.stride : 1; // only a stage's first block may stride
      let nextDilation = dilation;
      if (stride > 1) {
        if (totalStride * stride > OUTPUT_STRIDE) {
          nextDilation *= stride;
          stride = 1;
        } else totalStride *= stride;
      }
      const rounded = { ...given, stride, outChs: roundChs(given.outChs) };
      const args: BlockArgs =
        rounded.blockType === 'er' && rounded.forceInChs > 0
          ? { ...rounded, forceInChs: roundChs(rounded.forceInChs) }
          : rounded;
      refuseImpossible(args, inChs, `${where}.block_args.${stageIndex}.${blockIndex}`);
      const block = { args, inChs, dilation };
      dilation = nextDilation; // dilates the blocks after it
      inChs = args.outChs;
      return block;
    });
    const next = blockArgs[stageIndex + 1];
    if (!next || next[0]?.stride !== 1) {
      if (stage.at(-1)?.blockType === 'mqa') {
        throw new ConfigError({
          where: `${where}.block_args.${stageIndex}`,
          expected: 'a last block of type "er" or "uir", since its output is a feature',
          received: '"mqa", of which timm cannot tell the channels',
          remedy: 'end the stage with a "uir" block',
        });
      }
      features.push({ stage: stageIndex + 1, channels: inChs });
    }
    return planned;
  });
  return { stemSize, stages, ...planFusion(config, stemSize, stages, features, where) };
}

/** The adapter's indices count features, yet timm picks the stages of those numbers; they differ when a stage begins
 *  without a stride. Kept, as long as the channels agree. */
function planFusion(
  config: TowerConfig,
  stemSize: number,
  stages: TowerPlan['stages'],
  features: readonly { channels: number }[],
  where: string,
): Pick<TowerPlan, 'fusedStages' | 'fusedChs'> {
  const { msfaIndices } = config;
  const count = features.length;
  const indices =
    typeof msfaIndices === 'number'
      ? Array.from({ length: msfaIndices }, (_, i) => count - msfaIndices + i)
      : msfaIndices.map((index) => (index < 0 ? count + index : index));
  if (indices.some((index) => index < 0 || index >= count)) {
    throw new ConfigError({
      where: `${where}.msfa_indices`,
      expected: `features among the ${count} of this tower`,
      received: JSON.stringify(msfaIndices),
      remedy: 'a feature is the output before each stage that begins with a stride, and the last',
    });
  }
  const fusedChs = indices.reduce((sum, index) => sum + (features[index]?.channels ?? 0), 0);
  const fusedStages = [...new Set(indices)].sort((a, b) => a - b);
  const outChs = (stage: number): number =>
    stage === 0 ? stemSize : (stages[stage - 1]?.at(-1)?.args.outChs ?? 0);
  const actual = fusedStages.reduce((sum, stage) => sum + outChs(stage), 0);
  if (actual !== fusedChs) {
    throw new ConfigError({
      where: `${where}.msfa_indices`,
      expected: `stages ${fusedStages.join(', ')} (0 is the stem) with ${fusedChs} channels together`,
      received: `${actual} channels`,
      remedy: 'begin every stage with a block of stride 2, and name no feature twice',
    });
  }
  return { fusedStages, fusedChs };
}

function refuseImpossible(args: BlockArgs, inChs: number, where: string): void {
  const fail = (expected: string, received: string, remedy: string): never => {
    throw new ConfigError({ where, expected, received, remedy });
  };
  if (args.blockType === 'uir') {
    const { dwKernelSizeStart: start, dwKernelSizeMid: mid, dwKernelSizeEnd: end } = args;
    if (args.stride > 1 && start + mid + end === 0)
      fail('a depthwise kernel to carry the stride', 'none', 'give the block a start or middle kernel');
  }
  if (args.blockType === 'mqa' && args.numHeads === undefined && inChs % args.keyDim !== 0)
    fail(`a key_dim that divides ${inChs} channels`, String(args.keyDim), 'or give num_heads');
  for (const [channels, divisor] of groupedChannels(args, inChs)) {
    if (channels % divisor !== 0)
      fail(
        `a group_size whose groups divide ${channels} channels`,
        String(divisor),
        'choose another group_size',
      );
  }
}

/** Channel counts that a block's grouped convolutions need divisible, each with its divisor. */
function groupedChannels(args: BlockArgs, inChs: number): [number, number][] {
  if (args.blockType === 'mqa' || args.groupSize === 0) return [];
  const { groupSize } = args;
  if (args.blockType === 'er') {
    const midChs = expandedChs(args, inChs);
    return [
      [midChs, groupSize],
      ...(midChs % groupSize === 0 ? [[inChs, midChs / groupSize] as [number, number]] : []),
    ];
  }
  const pairs: [number, number, number][] = [
    [args.dwKernelSizeStart, inChs, groupSize],
    [args.dwKernelSizeMid, expandedChs(args, inChs), groupSize],
    [args.dwKernelSizeEnd, args.outChs, groupSize],
  ];
  return pairs.filter(([kernel]) => kernel > 0).map(([, channels, divisor]) => [channels, divisor]);
}
