// Runs jinja that comes with a checkpoint: foreign code, which gets so many steps, and may make so much. The interpreter
// is npm's @huggingface/jinja; ours watches every value that its expressions make.

import * as library from '@huggingface/jinja';
import type { Template } from '@huggingface/jinja';
import { pythonTrim } from './python-trim.js';

export interface Budget {
  /** Expressions and statements evaluated. */
  readonly steps: number;
  /** Characters of any one text, and elements of any one list, nested ones counted where they stand. */
  readonly size: number;
  /** Characters and elements of all values together. */
  readonly total: number;
}

/** A template went beyond its budget. */
export class BudgetError extends Error {
  constructor(readonly limit: string) {
    super(`more than ${limit}`);
  }
}

interface Statement {
  readonly type: string;
  /** An identifier's name. */
  readonly value?: unknown;
}

/** What the library calls a runtime value: `value` is a string, a list of such, a map of such, ... */
interface Value {
  readonly value: unknown;
}

interface Scope {
  set(name: string, value: unknown): void;
}

/** What is used of the library's interpreter, whose own types NodeNext does not resolve. */
const { Environment, Interpreter } = library as unknown as {
  readonly Environment: new () => Scope;
  readonly Interpreter: new (scope: Scope) => {
    run(program: unknown): Value;
    evaluate(statement: Statement | undefined, scope: Scope): Value;
    applyFilter(operand: Value, filter: Statement, scope: Scope): Value;
  };
};

/** Characters of a template. Parsing takes time and stack in proportion. */
export const maxSourceLength = 1 << 20;

/** Renders `template` with `variables` in view.
 *  @throws {BudgetError} and whatever the template raises */
export function renderBounded(
  template: Template,
  variables: Readonly<Record<string, unknown>>,
  budget: Budget,
): string {
  const scope = new Environment();
  for (const [name, value] of Object.entries({ ...globals(budget), ...variables })) scope.set(name, value);
  return String(new Watched(scope, budget).run(template.parsed).value);
}

/** Expressions that make new values; others only name or choose among those that exist. */
const makers = new Set([
  ...['BinaryExpression', 'CallExpression', 'FilterExpression', 'SliceExpression', 'Set', 'For', 'If'],
  ...[
    'ArrayLiteral',
    'TupleLiteral',
    'ObjectLiteral',
    'CallStatement',
    'FilterStatement',
    'MemberExpression',
  ],
]);

class Watched extends Interpreter {
  #steps = 0;
  #total = 0;

  constructor(
    scope: Scope,
    readonly budget: Budget,
  ) {
    super(scope);
  }

  override evaluate(statement: Statement | undefined, scope: Scope): Value {
    if (++this.#steps > this.budget.steps) throw new BudgetError(`${this.budget.steps} steps`);
    const value = super.evaluate(statement, scope);
    if (statement && makers.has(statement.type)) this.#weigh(value);
    return value;
  }

  /** The library trims as JavaScript does; templates are written for Python. */
  override applyFilter(operand: Value, filter: Statement, scope: Scope): Value {
    const value = super.applyFilter(operand, filter, scope);
    if (filter.value !== 'trim' || typeof value.value !== 'string') return value;
    const Text = value.constructor as new (text: string) => Value;
    return new Text(pythonTrim(value.value));
  }

  /** Walks what a value holds, as often as it holds it: a list of itself ten times over prints ten times. */
  #weigh(value: Value): void {
    let size = 0;
    const open: unknown[] = [value];
    while (open.length > 0) {
      const content = (open.pop() as Value | undefined)?.value;
      if (typeof content === 'string') size += content.length;
      else if (Array.isArray(content)) {
        size += content.length;
        if (size <= this.budget.size) for (const element of content) open.push(element);
      } else if (content instanceof Map) {
        size += content.size;
        if (size <= this.budget.size) for (const element of content.values()) open.push(element);
      }
      if (size > this.budget.size) {
        throw new BudgetError(`${this.budget.size} characters or elements in a value`);
      }
    }
    this.#total += size;
    if (this.#total > this.budget.total) {
      throw new BudgetError(`${this.budget.total} characters and elements in all`);
    }
  }
}

/** What the library declares for its own templates, with a `range` that is bounded. */
function globals(budget: Budget): Readonly<Record<string, unknown>> {
  return {
    ...{ true: true, True: true, false: false, False: false, none: null, None: null },
    raise_exception: (message: string) => {
      throw new Error(message);
    },
    range: (...bounds: number[]) => range(bounds, budget.size),
    strftime_now: (format: string) => strftime(new Date(), format),
  };
}

function range(bounds: readonly number[], limit: number): number[] {
  const [start, stop, step] =
    bounds.length === 1 ? [0, bounds[0]!, 1] : [bounds[0] ?? 0, bounds[1] ?? 0, bounds[2] ?? 1];
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (!Number.isSafeInteger(length)) throw new Error('range() wants integers and a step that is not zero');
  if (length > limit) throw new BudgetError(`${limit} numbers in a range`);
  return Array.from({ length }, (_, i) => start + i * step);
}

/** The conversions that chat templates use, in English as Python's default locale has them. */
function strftime(date: Date, format: string): string {
  const two = (n: number): string => String(n).padStart(2, '0');
  const month = (style: 'long' | 'short') => date.toLocaleString('en-US', { month: style });
  const day = (style: 'long' | 'short') => date.toLocaleString('en-US', { weekday: style });
  const conversions: Readonly<Record<string, () => string>> = {
    '%Y': () => String(date.getFullYear()),
    '%y': () => two(date.getFullYear() % 100),
    '%m': () => two(date.getMonth() + 1),
    '%B': () => month('long'),
    '%b': () => month('short'),
    '%d': () => two(date.getDate()),
    '%A': () => day('long'),
    '%a': () => day('short'),
    '%H': () => two(date.getHours()),
    '%M': () => two(date.getMinutes()),
    '%S': () => two(date.getSeconds()),
    '%%': () => '%',
  };
  return format.replace(/%./gu, (token) => conversions[token]?.() ?? token);
}
