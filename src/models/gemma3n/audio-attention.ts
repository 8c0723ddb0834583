// Local attention of the audio tower: queries in chunks, each chunk with the frames around it, so that memory grows with
// the length alone. Positions are relative (Transformer-XL, arXiv:1901.02860): a query meets the embedding of the
// distance beside the key. Logits are soft-capped.
//
// Shapes: B clips, T frames, U chunks, W frames a chunk, C frames that a chunk sees (L before it, W, R behind it),
//         S = L + 1 + R distances, N heads, H head size, D = N H.

import { Linear, Module, parameter, softcap } from '../../nn/index.js';
import { type Tensor, empty, op, padConstant, softmax, tensor } from '../../tensor/index.js';
import type { AudioConfig } from './audio-config.js';

const softplus = op('aten::softplus');
const unfold = op('aten::unfold');

/** Of a logit that takes no part; beyond every cap, within every float but float16, where logits never are. */
const MASKED = -1e30;
const LONGEST_TIMESCALE = 1e4;

/** How far attention reaches: the sizes of the legend. */
export interface Reach {
  readonly before: number;
  readonly behind: number;
  readonly chunk: number;
  readonly seen: number;
}

export function reachOf(config: AudioConfig): Reach {
  const before = Math.max(0, config.confAttentionContextLeft - 1);
  const behind = config.confAttentionContextRight;
  const chunk = config.confAttentionChunkSize;
  return { before, behind, chunk, seen: before + chunk + behind };
}

/** What every layer's attention needs besides its input; the same for all layers. */
export interface AudioAttentionContext {
  /** bool [1, B U, W, C]: a key may not be attended to */
  readonly hidden: Tensor;
  /** [S, D]: of each distance, from L frames back to R frames ahead */
  readonly distances: Tensor;
}

/** @param mask bool [B, T], true on real frames */
export function attentionContext(config: AudioConfig, mask: Tensor, like: Tensor): AudioAttentionContext {
  const reach = reachOf(config);
  const { before, behind, chunk, seen } = reach;
  const local = Uint8Array.from({ length: chunk * seen }, (_, i) => {
    const ahead = (i % seen) - Math.floor(i / seen); // counted from the earliest frame that the query may see
    return ahead >= 0 && ahead <= before + behind ? 1 : 0;
  });
  const real_BUC = windows(mask, reach);
  const visible = real_BUC
    .flatten(0, 1)
    .unsqueeze(1)
    .logicalAnd(tensor(local, [chunk, seen], 'bool', mask.device));
  return {
    hidden: visible.logicalNot().unsqueeze(0),
    distances: distanceEmbedding(reach, config.hiddenSize, like),
  };
}

/** sin(d / timescale), then cos, of distances d = L ... -R; timescales from 1 to 10,000 in geometric steps. [S, D] */
function distanceEmbedding({ before, behind }: Reach, size: number, like: Tensor): Tensor {
  const half = size / 2;
  const step = Math.log(LONGEST_TIMESCALE) / Math.max(half - 1, 1);
  const numDistances = before + 1 + behind;
  const values = Float32Array.from({ length: numDistances * size }, (_, i) => {
    const [distance, channel] = [before - Math.floor(i / size), i % size];
    const angle = distance * Math.exp(-step * (channel % half));
    return channel < half ? Math.sin(angle) : Math.cos(angle);
  });
  return tensor(values, [numDistances, size], like.dtype, like.device);
}

/** The frames that each chunk sees; zeros beyond the ends. @param x [B, T, ...] @returns [B, U, ..., C], a view */
function windows(x: Tensor, { before, behind, chunk, seen }: Reach): Tensor {
  const rest = new Array<number>(2 * (x.ndim - 2)).fill(0);
  return unfold(padConstant(x, [...rest, before, behind + chunk - 1]), 1, seen, chunk);
}

export class AudioAttention extends Module {
  readonly relativePositionEmbedding: RelativePositionEmbedding;
  /** [H] */
  perDimScale: Tensor;
  readonly qProj: Linear;
  readonly kProj: Linear;
  readonly vProj: Linear;
  readonly #numHeads: number;
  readonly #reach: Reach;

  constructor(private readonly config: AudioConfig) {
    super();
    const { hiddenSize: size, confNumAttentionHeads: numHeads } = config;
    this.#numHeads = numHeads;
    this.#reach = reachOf(config);
    this.relativePositionEmbedding = new RelativePositionEmbedding(size);
    this.perDimScale = parameter(empty([size / numHeads]));
    this.qProj = new Linear(size, size);
    this.kProj = new Linear(size, size);
    this.vProj = new Linear(size, size);
  }

  /** @param x [B, T, D] @returns [B, T, D]; padding's rows mean nothing */
  forward(x: Tensor, { hidden, distances }: AudioAttentionContext): Tensor {
    const [batch = 1, length = 1, size = 1] = x.shape;
    const { chunk, seen } = this.#reach;
    const [numHeads, headDim] = [this.#numHeads, size / this.#numHeads];
    const numChunks = batch * Math.ceil(length / chunk);

    const q_NBWH = this.#queries(x, headDim)
      .view([numChunks, chunk, numHeads, headDim])
      .permute([2, 0, 1, 3]);
    const heads = (x: Tensor): Tensor =>
      windows(x, this.#reach).reshape([numChunks, numHeads, headDim, seen]).transpose(0, 1);
    const k_NBHC = heads(this.kProj.forward(x));
    const v_NBHC = heads(this.vProj.forward(x));

    const content = q_NBWH.matmul(k_NBHC);
    const position = this.relativePositionEmbedding.forward(q_NBWH, distances, seen);
    // In float32: in bfloat16 a logit near the cap is wrong by an eighth.
    const logits = softcap(content.add(position).to('float32'), this.config.confAttentionLogitCap);

    const weights = softmax(logits.maskedFill(hidden, MASKED), -1).to(x.dtype);
    const attended_NBWH = weights.matmul(v_NBHC.transpose(-1, -2));
    return attended_NBWH.permute([1, 2, 0, 3]).reshape([batch, -1, size]).narrow(1, 0, length);
  }

  /** Scaled by softplus(perDimScale) / softplus(0) / sqrt(H), padded to whole chunks. [B, U W, D] */
  #queries(x: Tensor, headDim: number): Tensor {
    const [batch = 1, length = 1] = x.shape;
    const scale = softplus(this.perDimScale).mul(headDim ** -0.5 / Math.LN2);
    const q = this.qProj.forward(x).view([batch, length, this.#numHeads, headDim]).mul(scale).flatten(2);
    const { chunk } = this.#reach;
    return padConstant(q, [0, 0, 0, Math.ceil(length / chunk) * chunk - length]);
  }
}

/** Products of queries and embedded distances. */
export class RelativePositionEmbedding extends Module {
  readonly posProj: Linear;

  constructor(size: number) {
    super();
    this.posProj = new Linear(size, size);
  }

  /** @param q [N, B U, W, H] @param distances [S, D] @param seen C
   *  @returns [N, B U, W, C]: for query w and key c the product of distance c - w; of no use where that is none */
  forward(q: Tensor, distances: Tensor, seen: number): Tensor {
    const [numHeads = 1, numChunks = 1, chunk = 1, headDim = 1] = q.shape;
    const [numDistances = 1] = distances.shape;
    const embedded_NHS = this.posProj
      .forward(distances)
      .view([numDistances, numHeads, headDim])
      .permute([1, 2, 0]);
    const products = q.reshape([numHeads, numChunks * chunk, headDim]).matmul(embedded_NHS);

    // Rows of C + 1, read as rows of C: each row begins one place later than the row before.
    const padded = padConstant(products, [0, seen + 1 - numDistances]).view([numHeads, numChunks, -1]);
    return padded.narrow(2, 0, chunk * seen).view([numHeads, numChunks, chunk, seen]);
  }
}
