// JSON as untrusted files hold it: what `JSON.parse` takes, but a key given twice is an error, nesting is bounded, and
// objects have no prototype, so that a key such as "__proto__" is a key like any other.

/** A text that is not the JSON expected; `offset` counts characters. */
export class JsonFault extends Error {
  constructor(
    message: string,
    readonly offset: number,
  ) {
    super(`${message} at character ${offset}`);
    this.name = 'JsonFault';
  }
}

export type JsonObject = Record<string, unknown>;

const numberPattern = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const literals: readonly (readonly [string, unknown])[] = [
  ['true', true],
  ['false', false],
  ['null', null],
];

/** Parses `text`.
 *  @param maxDepth of arrays and objects inside each other
 *  @throws {JsonFault} naming what was expected and where */
export function parseStrictJson(text: string, maxDepth = 16): unknown {
  let at = 0;

  const fail = (message: string): never => {
    throw new JsonFault(message, at);
  };
  const skipSpace = (): void => {
    while (at < text.length && ' \t\n\r'.includes(text[at]!)) at++;
  };
  const take = (character: string): boolean => {
    skipSpace();
    if (text[at] !== character) return false;
    at++;
    return true;
  };

  const readString = (): string => {
    const begin = at++;
    while (at < text.length && text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
    if (at >= text.length) fail('a string without its end');
    at++;
    try {
      return JSON.parse(text.slice(begin, at)) as string;
    } catch {
      at = begin;
      return fail('a malformed string');
    }
  };

  const readObject = (depth: number): JsonObject => {
    const object = Object.create(null) as JsonObject;
    if (take('}')) return object;
    do {
      skipSpace();
      if (text[at] !== '"') fail('expected a key');
      const keyAt = at;
      const key = readString();
      if (key in object) {
        at = keyAt;
        fail(`the key ${JSON.stringify(key)} a second time`);
      }
      if (!take(':')) fail("expected ':'");
      object[key] = readValue(depth + 1);
    } while (take(','));
    if (!take('}')) fail("expected ',' or '}'");
    return object;
  };

  const readArray = (depth: number): unknown[] => {
    const array: unknown[] = [];
    if (take(']')) return array;
    do array.push(readValue(depth + 1));
    while (take(','));
    if (!take(']')) fail("expected ',' or ']'");
    return array;
  };

  const readValue = (depth: number): unknown => {
    skipSpace();
    if (depth > maxDepth) fail(`nested more than ${maxDepth} deep`);
    if (text[at] === '"') return readString();
    if (take('{')) return readObject(depth);
    if (take('[')) return readArray(depth);
    numberPattern.lastIndex = at;
    const number = numberPattern.exec(text)?.[0];
    if (number !== undefined) {
      at += number.length;
      return Number(number);
    }
    for (const [word, value] of literals) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return value;
      }
    }
    return fail(at < text.length ? 'expected a value' : 'the end where a value was expected');
  };

  const value = readValue(0);
  skipSpace();
  if (at < text.length) fail('more text after the value');
  return value;
}

/** True for what `parseStrictJson` made of `{...}`. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
