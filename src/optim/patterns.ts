// Patterns over parameter names: globs, where `*` stands for any characters, and regular expressions. A glob names a
// parameter by its whole name, by the end of it, or by a module that holds it.

import { z } from '../schema.js';

/** A glob, or a regular expression; plain text once decoded, '/source/flags', so that it crosses to another thread. */
export const PATTERN = z
  .union([z.string().min(1), z.instanceof(RegExp)], 'expected a glob or a RegExp')
  .transform((pattern, context) => {
    const text = String(pattern);
    try {
      matcher(text);
      return text;
    } catch {
      context.addIssue({
        code: 'custom',
        message: 'expected a regular expression that can be read',
        input: text,
      });
      return z.NEVER;
    }
  });

/** One or several. */
export const PATTERNS = z
  .union([PATTERN, z.array(PATTERN).min(1)])
  .transform((patterns) => [patterns].flat());

/** @returns whether a parameter's name is meant by the pattern */
export function matcher(pattern: string): (name: string) => boolean {
  const [, source, flags = ''] = /^\/(.+)\/([a-z]*)$/s.exec(pattern) ?? [];
  if (source !== undefined) {
    const expression = new RegExp(source, flags.replace(/[gy]/g, '')); // those remember where they stood
    return (name) => expression.test(name);
  }
  const glob = pattern
    .split('*')
    .map((text) => text.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
    .join('.*');
  const expression = new RegExp(`^(.*\\.)?${glob}(\\..*)?$`, 's');
  return (name) => expression.test(name);
}
