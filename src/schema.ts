// Unknown values to typed configuration, over zod: every fault at once, each with the path of its key.

import { z } from 'zod';
import { ConfigError, describeFault } from './errors.js';

export { z };

/** Decodes `value` by `schema`.
 *  @param where what is being decoded, for the message: a file name, "--set step.lr"
 *  @throws {ConfigError} listing every fault, one a line, with its path */
export function decode<S extends z.ZodType>(schema: S, value: unknown, where: string): z.output<S> {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  throw new ConfigError(result.error.issues.map((issue) => faultLine(issue, where)).join('\n'), {
    cause: result.error,
  });
}

function faultLine(issue: z.core.$ZodIssue, where: string): string {
  const path = issue.path.map(String).join('.') || '(root)';
  if (issue.code === 'unrecognized_keys') {
    return describeFault({
      where: `${where}: ${path === '(root)' ? '' : `${path}.`}${issue.keys.join(', ')}`,
      expected: 'a known key',
      received: 'an unknown one',
      remedy: 'remove it or correct its spelling',
    });
  }
  return `${where}: ${path}: ${issue.message}, received ${show(issue.input)}; correct this value`;
}

function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text =
    typeof value === 'string' ? JSON.stringify(value) : (JSON.stringify(value, plain) ?? typeof value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

/** JSON has no whole numbers of any size. */
function plain(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `${value}n` : value;
}
