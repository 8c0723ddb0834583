export { jsonLines } from './json-lines.js';
export { progress } from './progress.js';
export { report } from './report.js';
