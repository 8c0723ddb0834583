// Small named errors. Each has a stable `code`, keeps its `cause`, and a message made by one formula:
// "where: expected ..., received ...; remedy".

/** What went wrong, in the four parts that every message of Sluice holds. */
export interface Fault {
  /** The place: an operation, a file and row, a config path. */
  readonly where: string;
  readonly expected: string;
  readonly received: string;
  /** What the reader can do about it. */
  readonly remedy: string;
}

/** Renders a fault as "where: expected X, received Y; remedy". */
export function describeFault(fault: Fault): string {
  return `${fault.where}: expected ${fault.expected}, received ${fault.received}; ${fault.remedy}`;
}

/** Base of all errors that a user can cause and mend. */
export class SluiceError extends Error {
  readonly code: string = 'SLUICE';

  constructor(fault: Fault | string, options?: { cause?: unknown }) {
    super(typeof fault === 'string' ? fault : describeFault(fault), options);
    this.name = new.target.name;
  }
}

/** A pipeline file, option or command line is wrong (exit code 2). */
export class ConfigError extends SluiceError {
  override readonly code = 'CONFIG';
}

/** The engine, the addon or a tool could not be set up. */
export class SetupError extends SluiceError {
  override readonly code = 'SETUP';
}

/** A tensor operation got shapes, dtypes or devices that do not fit. */
export class TensorError extends SluiceError {
  override readonly code = 'TENSOR';
}

/** A file of rows, or one row, cannot be read as declared. */
export class DataError extends SluiceError {
  override readonly code = 'DATA';
}

/** An image cannot be decoded, or is refused before decoding. */
export class ImageError extends SluiceError {
  override readonly code = 'IMAGE';
}

/** A clip cannot be decoded, or is refused before decoding. */
export class AudioError extends SluiceError {
  override readonly code = 'AUDIO';
}

/** A file of the Hugging Face Hub cannot be fetched, or is not what the Hub said. */
export class HubError extends SluiceError {
  override readonly code = 'HUB';
}

/** A tokenizer or chat template does not fit what it is asked to do. */
export class TextError extends SluiceError {
  override readonly code = 'TEXT';
}

/** A checkpoint's files are malformed, incomplete or of another model. */
export class CheckpointError extends SluiceError {
  override readonly code = 'CHECKPOINT';
}

/** A model is given inputs that contradict each other or its configuration. */
export class ModelError extends SluiceError {
  override readonly code = 'MODEL';
}

/** The stream's bookkeeping or its declared bounds are violated. */
export class FlowError extends SluiceError {
  override readonly code = 'FLOW';
}

/** Training cannot go on: a non-finite loss or gradient, a device that stopped. */
export class TrainError extends SluiceError {
  override readonly code = 'TRAIN';
}

/** More rows cannot be used than a run puts up with. */
export class QuarantineError extends SluiceError {
  override readonly code = 'QUARANTINE';
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
