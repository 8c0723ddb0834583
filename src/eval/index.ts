export { evaluation } from './evaluation.js';
export { exactMatch, promptAlone, type Score } from './score.js';
export { rougeL } from './rouge-l.js';
export { promptAloneWords, wordErrorRate } from './word-error-rate.js';
