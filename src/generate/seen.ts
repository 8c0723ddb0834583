// Which tokens each row holds already, for the repetition penalty.

import { type Tensor, keep, op, scope, tensor, zeros } from '../tensor/index.js';

const scatter_ = op('aten::scatter_.value');

/** Its tensor lives until `dispose`. */
export class SeenTokens {
  /** bool [rows, vocab + 1]; the last column takes what is no token of the vocabulary */
  readonly #seen: Tensor;
  readonly #vocab: number;

  constructor(rows: number, vocab: number, device: string) {
    this.#vocab = vocab;
    this.#seen = scope(() => keep(zeros([rows, vocab + 1], { dtype: 'bool', device })));
  }

  /** @param ids of each row, as many in one as in another; undefined for none */
  add(ids: readonly (readonly (number | undefined)[])[]): void {
    const length = ids[0]?.length ?? 0;
    if (length === 0) return;
    scope(() => {
      const inside = ids.flatMap((row) => row.map((id) => BigInt(Math.min(id ?? this.#vocab, this.#vocab))));
      const index = tensor(BigInt64Array.from(inside), [ids.length, length], 'int64', this.#seen.device);
      scatter_(this.#seen, 1, index, 1);
    });
  }

  /** bool [rows, vocab]; a view of the caller's scope */
  get mask(): Tensor {
    return this.#seen.narrow(1, 0, this.#vocab);
  }

  dispose(): void {
    this.#seen.dispose();
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
}
