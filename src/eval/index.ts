export { evaluation } from './evaluation.js';
export { exactMatch, promptAlone, type Score } from './score.js';
