// The addon's functions as TypeScript sees them. A `Handle` is a number that stands for a tensor of this thread.

/** A live tensor of this thread; 0 is none. */
export type Handle = number;

/** An operator resolved by name, its argument conversion planned. */
export interface ResolvedOp {
  /** Arguments in the schema's order; tensors as handles. */
  readonly call: (...args: any[]) => any;
  /** What `call` returns: nothing, its first argument written in place, one tensor, several values, or another value. */
  readonly result: 'nothing' | 'self' | 'tensor' | 'several' | 'other';
  /** Of each returned value. */
  readonly kinds: readonly ('tensor' | 'tensors' | 'value')[];
  readonly schema: string;
}

export interface EngineFacts {
  readonly version: string;
  readonly cpuCapability: string;
  readonly config: string;
  readonly parallel: string;
  readonly threads: number;
  readonly cuda: boolean;
  /** Path of the libtorch_cpu that is loaded. */
  readonly library: string;
}

export type AnyTypedArray =
  | Float32Array
  | Float64Array
  | Int32Array
  | Int16Array
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Uint16Array
  | BigInt64Array;

/** A file mapped into memory; opaque. */
export type Mapping = object;

export interface NativeAddon {
  resolve(name: string, overload: string): ResolvedOp;
  /** @param share view the array's memory instead of copying it (same dtype, CPU); the array must not change */
  fromArray(
    data: AnyTypedArray,
    sizes: readonly number[],
    dtype: string,
    device: string,
    share: boolean,
  ): Handle;
  toArray(handle: Handle): AnyTypedArray;
  toBytes(handle: Handle): Uint8Array;
  /** Appends the elements' bytes to an open file; blocks until the system has taken them.
   *  @param file its descriptor @returns 0, or the system's error number */
  writeTensor(handle: Handle, file: number): number;
  /** Each source's elements into the target at its place, which has its shape. */
  copyTensors(sources: readonly Handle[], targets: readonly Handle[]): void;
  item(handle: Handle): number;
  sizes(handle: Handle): number[];
  dtype(handle: Handle): string;
  device(handle: Handle): string;
  numBytes(handle: Handle): number;
  requiresGrad(handle: Handle, value?: boolean): boolean;
  grad(handle: Handle): Handle;
  setGrad(handle: Handle, gradient: Handle): void;
  backward(outputs: readonly Handle[], gradients: readonly Handle[] | undefined, retainGraph: boolean): void;
  /** Without retaining; frees the outputs and the gradients as early as it can. */
  backwardTaking(outputs: readonly Handle[], gradients: readonly Handle[]): void;
  gradients(
    outputs: readonly Handle[],
    inputs: readonly Handle[],
    gradOutputs: readonly Handle[] | undefined,
    retainGraph: boolean,
  ): Handle[];
  setGradEnabled(enabled: boolean): boolean;
  free(handle: Handle): boolean;
  share(handle: Handle): Handle;
  liveTensors(): number;
  /** @returns a number under which any thread of the process may take the tensor, once */
  sendTensor(handle: Handle): number;
  /** @returns a handle of this thread, or 0 where nothing waits under that number */
  receiveTensor(number: number): Handle;
  adjustMemory(bytes: number): number;
  /** Bytes in use by tensors on a CPU, and the most since the last restart. @param restart counts the most from now on */
  tensorMemory(restart: boolean): [used: number, most: number];
  manualSeed(seed: number): void;
  randomState(state?: Handle): Handle;
  numThreads(threads?: number): number;
  facts(): EngineFacts;
  openLibrary(path: string): void;
  /** @param bytes the size that the file must have */
  mapFile(path: string, bytes: number): Mapping;
  mappedTensor(
    mapping: Mapping,
    offset: number,
    bytes: number,
    dtype: string,
    sizes: readonly number[],
  ): Handle;
  /** Reads as many elements of `dtype` as `target` has; false where that is not contiguous on a CPU. */
  readMapped(mapping: Mapping, offset: number, dtype: string, target: Handle): boolean;
  releaseMapped(mapping: Mapping, offset: number, bytes: number): void;
  unmapFile(mapping: Mapping): void;
  /** RGB bytes [height, width, 3] resized with antialias into `output`, off this thread, and `output`. Neither array may
   *  be touched until then. */
  resizeRgb(
    data: Uint8Array,
    height: number,
    width: number,
    outHeight: number,
    outWidth: number,
    cubic: boolean,
    output: Uint8Array,
  ): Promise<Uint8Array>;
  /** The same into planes [3, outHeight, outWidth].
   *  @param scaling for each channel a shift, then for each a factor or divisor
   *  @param divide a value v becomes (v - shift) / by instead of v * by */
  resizeRgbToPlanes(
    data: Uint8Array,
    height: number,
    width: number,
    outHeight: number,
    outWidth: number,
    cubic: boolean,
    output: Float32Array,
    scaling: Float32Array,
    divide: boolean,
  ): Promise<Float32Array>;
}
