#!/usr/bin/env node
// The bin. Everything is in main.ts, which tests call too.

import { main } from './main.js';

const code = await main(process.argv.slice(2));
// Leave when both streams have drained: a worker or timer left behind must not keep a finished command alive.
process.stdout.write('', () => process.stderr.write('', () => process.exit(code)));
