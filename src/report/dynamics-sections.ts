// The report's sections on the model that was trained, on warnings, and on the first steps.

import type { ModelEvent, StepEvent, WarningEvent } from '../train/events.js';
import { explainFirstSteps, FIRST_STEPS } from './first-steps.js';
import { escape } from './html.js';

/** Names that a warning's list shows. */
const SHOWN_NAMES = 200;

export function warningsSection(warnings: readonly WarningEvent[]): string {
  if (warnings.length === 0) return '';
  const items = warnings.map(
    ({ kind, step, message, remedy, names = [] }) =>
      `<li><b>${escape(kind)}</b> <small>${whenOf(step)}</small><p>${escape(message)}.</p>` +
      `<p class="remedy">What to do: ${escape(remedy)}.</p>${namesOf(names)}</li>`,
  );
  return `<section class="warnings"><h2>${items.length === 1 ? 'A warning' : `${items.length} warnings`}</h2><ul>${items.join('')}</ul></section>`;
}

function whenOf(step: number): string {
  return step === 0 ? 'before the first step' : `seen at step ${step}`;
}

function namesOf(names: readonly string[]): string {
  if (names.length === 0) return '';
  const more = names.length > SHOWN_NAMES ? `\n... and ${names.length - SHOWN_NAMES} more` : '';
  const shown = names.slice(0, SHOWN_NAMES).join('\n');
  return `<details><summary>${names.length} ${names.length === 1 ? 'name' : 'names'}</summary><pre>${escape(shown + more)}</pre></details>`;
}

export function modelSection(model: ModelEvent | undefined, steps: readonly StepEvent[]): string {
  if (!model) return '';
  const { numParameters, numTrainable, softcap, peakFlops } = model;
  const flops = steps.flatMap((step) => step.flops ?? []);
  const perStep = flops.reduce((sum, each) => sum + each, 0) / Math.max(1, flops.length);
  const facts: readonly (readonly [name: string, value: string])[] = [
    ['parameters', numParameters.toLocaleString('en')],
    [
      'that learn',
      `${numTrainable.toLocaleString('en')} (${share(numTrainable / Math.max(1, numParameters))})`,
    ],
    ['soft cap of the logits', softcap === undefined ? 'none' : String(softcap)],
    ...(flops.length > 0 ? [['operations a step, on average', `${scaled(perStep)}FLOP`] as const] : []),
    ...(peakFlops === undefined
      ? []
      : [["the machine's peak, as measured", `${scaled(peakFlops)}FLOP/s`] as const]),
  ];
  const rows = facts.map(([name, value]) => `<tr><td>${escape(name)}</td><td>${escape(value)}</td></tr>`);
  return `<section><h2>The model</h2><table><tbody>${rows.join('')}</tbody></table></section>`;
}

/** With the place where its charts are drawn. */
export function firstStepsSection(steps: readonly StepEvent[]): string {
  const paragraphs = explainFirstSteps(steps);
  if (paragraphs.length === 0) return '';
  const text = paragraphs.map((paragraph) => `<p>${escape(paragraph)}</p>`).join('');
  return `<section><h2>The first ${FIRST_STEPS} steps</h2><div class="words">${text}</div><div class="charts" id="first"></div></section>`;
}

function share(value: number): string {
  return `${(100 * value).toFixed(value < 0.1 ? 2 : 1)}%`;
}

/** '3.2 T' */
function scaled(value: number): string {
  const units = ['', 'k', 'M', 'G', 'T', 'P'];
  const power = Math.max(0, Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, value)) / 3)));
  return `${(value / 1000 ** power).toPrecision(3)} ${units[power]}`;
}
