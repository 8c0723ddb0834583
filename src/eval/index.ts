export { evaluation } from './evaluation.js';
export { exactMatch, promptAlone, type Score } from './score.js';
export { promptAloneWords, wordErrorRate } from './word-error-rate.js';
