// `pipe doctor`: what this machine has of what Sluice needs, and the command that mends what is missing.

import { command, CommandFailed } from '../main.js';

export default command<{ json: boolean }>({
  command: 'doctor',
  describe: 'Show engine, devices, tools and disk, and how to mend what is missing',
  builder: (args) =>
    args.option('json', { type: 'boolean', default: false, describe: 'One JSON object on stdout' }),
  handler: async ({ json }) => {
    const { examine } = await import('../doctor.js');
    const checks = await examine(process.env);
    if (json) {
      console.log(JSON.stringify({ ok: checks.every((check) => check.state !== 'missing'), checks }));
    } else {
      for (const { state, name, found, remedy } of checks) {
        console.log(`${marks[state]} ${name.padEnd(10)} ${found}`);
        if (remedy) console.log(`${' '.repeat(17)}mend: ${remedy}`);
      }
    }
    if (checks.some((check) => check.state === 'missing')) throw new CommandFailed('something is missing');
  },
});

const marks = { ok: '   ok', missing: 'MISS!', optional: '    -' } as const;
