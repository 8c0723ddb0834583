export {
  DTYPES,
  Tensor,
  backwardTaking,
  enableGrad,
  engine,
  grad,
  keep,
  liveTensors,
  noGrad,
  op,
  own,
  scope,
  type DType,
  type OpArgument,
  type Operand,
} from './tensor.js';
export * from './copy-all.js';
export * from './create.js';
export * from './crossing.js';
export * from './dtype-bytes.js';
export * from './engine-ready.js';
export * from './mapped.js';
export * from './ops.js';
export * from './random.js';
