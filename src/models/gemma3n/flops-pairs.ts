// How many pairs of a query and a key attention has to compute: those that it may see, whatever a kernel computes beside.

/** Causal: each token with itself and those before it, within a window.
 *  @param lengths of sequences that do not see each other @param window tokens that one sees, itself included */
export function causalPairs(lengths: readonly number[], window = Infinity): number {
  return lengths.reduce((sum, length) => {
    const early = Math.min(length, window); // tokens that see all before them
    return sum + (early * (early + 1)) / 2 + (length - early) * early;
  }, 0);
}

/** Each frame with itself, `before` frames before it and `behind` frames behind it, as far as there are some. */
export function localPairs(length: number, before: number, behind: number): number {
  return causalPairs([length], before + 1) + causalPairs([length], behind + 1) - length;
}
