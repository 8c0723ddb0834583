export { generate } from './generate.js';
export type { GenerateOptions } from './options.js';
