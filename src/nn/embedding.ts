// Embedding: rows of a table by id, times a constant. A frozen table may stay off the device, in memory of the host that
// is mapped from a file: then the rows that are looked up travel, and nothing else.

import { ModelError } from '../errors.js';
import { type DType, type Tensor, currentDefaults, empty, keep, op } from '../tensor/index.js';
import { placeOfNew } from './deferred.js';
import { Module, parameter } from './module.js';
import { type QuantisedWeight, refuseLearning } from './quantised-weight.js';
import { roundTo } from './round.js';

export interface EmbeddingOptions {
  /** The row that never gets a gradient from here, as PyTorch's `padding_idx`. */
  readonly paddingId?: number;
  /** Multiplies every row, rounded to the table's dtype first. */
  readonly scale?: number;
}

const embeddingOp = op('aten::embedding');

/** What rows become that are looked up in a table that stays where it is. */
interface RowsAs {
  readonly dtype: DType;
  readonly device: string;
}

const mappedTables = new WeakMap<Tensor, RowsAs>();

/** Whether a parameter is a table that stays off the device; then in which dtype its rows are used. */
export function mappedAs(weight: Tensor): DType | undefined {
  return mappedTables.get(weight)?.dtype;
}

/** Weights start uninitialised; see `Linear`. */
export class Embedding extends Module {
  /** [numEmbeddings, dim] */
  weight: Tensor;
  /** Instead of it, where it is frozen and quantised: `weight` has no memory then. */
  quantised: QuantisedWeight | undefined;
  /** Of the rows that are looked up: what this module was made for. */
  readonly rowsAs: RowsAs = currentDefaults();

  constructor(
    readonly numEmbeddings: number,
    readonly dim: number,
    readonly options: EmbeddingOptions = {},
  ) {
    super();
    this.weight = parameter(empty([numEmbeddings, dim], placeOfNew('tables')));
  }

  /** Where it computes. */
  get device(): string {
    return this.rowsAs.device;
  }

  /** @param ids int64 [...], each in [0, numEmbeddings) @returns [..., dim]
   *  @throws {ModelError} when a table off the device is to learn */
  forward(ids: Tensor): Tensor {
    const { paddingId = -1, scale = 1 } = this.options;
    const rowsAs = mappedTables.get(this.weight);
    const rows = this.quantised
      ? this.#quantisedRows(this.quantised, ids)
      : rowsAs
        ? this.#mappedRows(ids).to(rowsAs.dtype).to(rowsAs.device)
        : embeddingOp(this.weight, ids, paddingId);
    return scale === 1 ? rows : rows.mul(roundTo(scale, rows.dtype));
  }

  /** Takes a table that stays where it is, in its own dtype, and does not learn. Rows come in the dtype and on the device
   *  that this module was made for.
   *  @param table [numEmbeddings, dim] on a CPU; belongs to this module from now on */
  useMapped(table: Tensor): void {
    this.weight.dispose();
    this.weight = parameter(keep(table), { requiresGrad: false });
    mappedTables.set(table, this.rowsAs);
  }

  /** Memory for a table that has none yet; uninitialised. */
  allocate(): void {
    if (this.quantised || this.weight.device !== 'meta') return;
    this.weight.dispose();
    this.weight = parameter(empty([this.numEmbeddings, this.dim], this.rowsAs));
  }

  /** Takes codes and scales for the table, whose memory is freed. They belong to this module from now on. */
  useQuantised(quantised: QuantisedWeight): void {
    this.weight.dispose();
    this.weight = quantised.placeholder();
    this.quantised = quantised;
  }

  #quantisedRows(quantised: QuantisedWeight, ids: Tensor): Tensor {
    refuseLearning(this.weight);
    return quantised.lookUp(ids);
  }

  #mappedRows(ids: Tensor): Tensor {
    if (!this.weight.requiresGrad) return embeddingOp(this.weight, ids.to('cpu'), -1);
    throw new ModelError({
      where: 'embedding',
      expected: 'a table that does not learn, since it is mapped from a file',
      received: 'requiresGrad',
      remedy: "load the model with embeddings: 'device' to train it",
    });
  }
}
