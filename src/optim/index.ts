export { AdamW, adamw, type AdamWOptions, type AdamWPart, type StateSource } from './adamw.js';
export { clipGradNorm, gradNorm } from './grad-norm.js';
export { constant, cosine, linear, scheduleFactor, type Schedule, type ScheduleOptions } from './schedule.js';
