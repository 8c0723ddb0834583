// What is used of fft.js, which brings no types.

declare module 'fft.js' {
  export default class FFT {
    /** @param size a power of two, 2 or more */
    constructor(size: number);
    /** The first size / 2 + 1 bins as pairs (re, im).
     *  @param out [2 size] @param data [size] */
    realTransform(out: Float64Array, data: Float64Array): void;
  }
}
