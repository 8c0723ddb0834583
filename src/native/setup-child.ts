// The set-up as a program of its own, for loader.ts, which cannot wait for a promise. Progress goes to stderr; stdout
// gets the result as one line of JSON.

import { messageOf } from '../errors.js';
import { streamLog } from './progress.js';
import { ensureSetup } from './setup.js';

try {
  process.stdout.write(JSON.stringify({ note: await ensureSetup({ log: streamLog() }) }));
} catch (error) {
  process.stdout.write(JSON.stringify({ failure: messageOf(error) }));
}
