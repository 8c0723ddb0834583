// The shapes that data takes on its way: Row -> Sample -> Example -> Batch (see each).

/** Where a row came from: enough to find it again. */
export interface Origin {
  readonly file: string;
  readonly rowGroup: number;
  /** Row number in the whole file, from 0. */
  readonly row: number;
}

/** One record as its file holds it: column name -> value (strings, numbers, Uint8Array, arrays, objects). */
export type Row = Readonly<Record<string, unknown>>;

export interface TextPart {
  readonly type: 'text';
  readonly text: string;
}

/** Pixels as decoded: RGB, 8 bits, rows top to bottom, shape [height, width, 3]. */
export interface DecodedImage {
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
}

export interface ImagePart {
  readonly type: 'image';
  /** Encoded bytes (JPEG, PNG, WebP, ...) until `decodeMedia` replaces them by pixels. */
  readonly image: Uint8Array | DecodedImage;
}

/** Sound as decoded: one channel, float32 in [-1, 1]. */
export interface DecodedAudio {
  /** [samples] */
  readonly data: Float32Array;
  readonly sampleRateHz: number;
  /** Length of the whole clip where `data` is its beginning alone: decoding stops where the model would not hear on. */
  readonly cutFromSeconds?: number;
}

export interface AudioPart {
  readonly type: 'audio';
  /** Encoded bytes (WAV, MP3, FLAC, Ogg Vorbis, Opus, ...) until `decodeMedia` replaces them by samples. */
  readonly audio: Uint8Array | DecodedAudio;
}

export type Part = TextPart | ImagePart | AudioPart;

export type Role = 'system' | 'user' | 'assistant';

export interface Message {
  readonly role: Role;
  readonly content: readonly Part[];
}

/** One conversation to learn from: turns in order, media inside them. */
export interface Sample {
  readonly messages: readonly Message[];
  /** Free tags that evaluation groups scores by, such as { kind: 'yes/no' }. */
  readonly tags?: Readonly<Record<string, string>>;
}

/** A dense array: row-major `data`, product of `shape` elements. */
export interface NdArray<A extends Float32Array | Int32Array | Uint8Array> {
  readonly data: A;
  readonly shape: readonly number[];
}

/** What an evaluation compares a model's answer with. */
export interface Target {
  /** The last user turn's text. */
  readonly prompt: string;
  /** The assistant's answer in the data. */
  readonly reference: string;
  readonly tags: Readonly<Record<string, string>>;
  /** The sample's first picture, for people to look at. */
  readonly image?: DecodedImage;
}

/** One encoded sample. */
export interface Example {
  /** Token ids, image placeholders already expanded to soft tokens. [length] */
  readonly inputIds: Int32Array;
  /** The id to learn at each position, unshifted; -100 where nothing is to be learnt. [length] */
  readonly labels?: Int32Array;
  /** float32 [images, 3, height, width], as the processor config says (rescaled, maybe normalised). */
  readonly pixelValues?: NdArray<Float32Array>;
  /** float32 [clips, frames, melBins]: log-mel, clips padded to the longest. */
  readonly inputFeatures?: NdArray<Float32Array>;
  /** 1 on real frames. [clips, frames] */
  readonly inputFeaturesMask?: NdArray<Uint8Array>;
  /** What was left out of the sample, for people to know: a clip that was cut at 30 s. */
  readonly notices?: readonly string[];
  /** Set when the sample is to be answered (evaluation): `inputIds` then end in the generation prompt. */
  readonly target?: Target;
}

/** How several examples share the rows of a batch. */
export interface Packed {
  readonly samplesPerRow: readonly number[];
  /** Positions that hold no token, of all. */
  readonly paddingShare: number;
}

/** Several examples padded to the longest, or packed behind each other; what crosses to the device thread (its arrays are
 *  transferred). */
export interface Batch {
  /** [batch, length] */
  readonly inputIds: NdArray<Int32Array>;
  /** 1 on real tokens, 0 on padding. [batch, length] */
  readonly attentionMask: NdArray<Uint8Array>;
  /** Of packed rows alone: each token's place in its sample, beginning at 0 in each, and in the padding behind the last.
   *  [batch, length] */
  readonly positionIds?: NdArray<Int32Array>;
  /** Unshifted, -100 ignored. [batch, length] */
  readonly labels?: NdArray<Int32Array>;
  /** All images of the batch in order of their placeholders. [images, 3, height, width] */
  readonly pixelValues?: NdArray<Float32Array>;
  /** All clips of the batch in order of their placeholders, padded to the longest. [clips, frames, melBins] */
  readonly inputFeatures?: NdArray<Float32Array>;
  /** 1 on real frames. [clips, frames] */
  readonly inputFeaturesMask?: NdArray<Uint8Array>;
  /** Real (unpadded) tokens. */
  readonly numTokens: number;
  /** Positions that the loss counts: labels that are not -100, the first position of a sample excepted
   *  (nothing precedes it to predict it from). */
  readonly numLabels: number;
  readonly numSamples: number;
  /** For people to know. */
  readonly packed?: Packed;
  /** One a row, in an evaluation; stays on the host. */
  readonly targets?: readonly Target[];
}
