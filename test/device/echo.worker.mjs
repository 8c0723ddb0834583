// A device thread for tests: no engine, only what the protocol can do.

import { setTimeout as delay } from 'node:timers/promises';
import { ConfigError, DataError } from '../../dist/errors.js';
import { serve } from '../../dist/device/serve.js';

class CollateError extends DataError {}

const done = [];

serve({
  echo: (value) => value,
  async slowly(name, ms) {
    await delay(ms);
    done.push(name);
    return [...done];
  },
  sum: (array) => array.reduce((total, value) => total + value, 0),
  refuse() {
    throw new ConfigError(
      { where: 'here', expected: 'a', received: 'b', remedy: 'mend it' },
      { cause: Object.assign(new RangeError('too far'), { code: 'EFAR' }) },
    );
  },
  collate() {
    throw new CollateError('example 3');
  },
  stumble() {
    throw new TypeError('no function');
  },
  shout() {
    throw 'just text';
  },
  unsendable: () => () => 1,
  async until(signal) {
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
    signal.throwIfAborted();
  },
  die: () => process.exit(3),
  crash() {
    setTimeout(() => {
      throw new Error('out of nowhere');
    });
    return delay(60_000);
  },
});
