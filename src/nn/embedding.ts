// Embedding: rows of a table by id, times a constant.

import { type Tensor, empty, op } from '../tensor/index.js';
import { Module, parameter } from './module.js';
import { roundTo } from './round.js';

export interface EmbeddingOptions {
  /** The row that never gets a gradient from here, as PyTorch's `padding_idx`. */
  readonly paddingId?: number;
  /** Multiplies every row, rounded to the table's dtype first. */
  readonly scale?: number;
}

const embeddingOp = op('aten::embedding');

/** Weights start uninitialised; see `Linear`. */
export class Embedding extends Module {
  /** [numEmbeddings, dim] */
  weight: Tensor;

  constructor(
    readonly numEmbeddings: number,
    readonly dim: number,
    readonly options: EmbeddingOptions = {},
  ) {
    super();
    this.weight = parameter(empty([numEmbeddings, dim]));
  }

  /** @param ids int64 [...], each in [0, numEmbeddings) @returns [..., dim] */
  forward(ids: Tensor): Tensor {
    const { paddingId = -1, scale = 1 } = this.options;
    const rows = embeddingOp(this.weight, ids, paddingId);
    return scale === 1 ? rows : rows.mul(roundTo(scale, rows.dtype));
  }
}
