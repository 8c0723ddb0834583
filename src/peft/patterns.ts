// Patterns over module names: globs, where `*` stands for any characters, and regular expressions written /source/flags.
// A glob names a module, by its whole name or the end of it, and with it all modules inside.

const WRITTEN = /^\/(.+)\/([a-z]*)$/s;

/** Whether a text is a regular expression that can be read. */
export function isExpression(text: string): boolean {
  try {
    return expressionOf(text) !== undefined;
  } catch {
    return false;
  }
}

/** @returns whether a module's name is meant by the pattern */
export function matcher(pattern: string): (name: string) => boolean {
  const expression = expressionOf(pattern);
  if (expression) return (name) => expression.test(name);
  const source = pattern.split('*').map(escape).join('.*');
  const glob = new RegExp(`^(.*\\.)?${source}(\\..*)?$`, 's');
  return (name) => glob.test(name);
}

/** Without the flags that make a RegExp remember where it stood. */
function expressionOf(text: string): RegExp | undefined {
  const [, source, flags = ''] = WRITTEN.exec(text) ?? [];
  return source === undefined ? undefined : new RegExp(source, flags.replace(/[gy]/g, ''));
}

function escape(text: string): string {
  return text.replace(/[.+?^${}()|[\]\\]/g, '\\$&');
}

/** The candidates that are most like a text, for "did you mean": by whole names and by their ends. */
export function nearMisses(text: string, names: Iterable<string>, count = 4): string[] {
  const ends = new Set(Array.from(names, (name) => name.slice(name.lastIndexOf('.') + 1)));
  const wanted = text.replace(/^\/|\/[a-z]*$|[*\\^$()|?+[\]]/g, '');
  const end = wanted.slice(wanted.lastIndexOf('.') + 1);
  return [...ends]
    .map((name) => ({ name, distance: editDistance(end, name) }))
    .sort((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1))
    .slice(0, count)
    .map(({ name }) => name);
}

/** Insertions, deletions and replacements from one text to another (Levenshtein 1965). */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}
