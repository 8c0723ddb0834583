// The report's HTML: tiles, charts (uPlot, inlined), evaluations by group, answers with their pictures.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type {
  AnswersEvent,
  CheckpointEvent,
  CheckpointFailedEvent,
  EndEvent,
  EvalEvent,
  ModelEvent,
  NoticeEvent,
  QuarantineEvent,
  SampleAnswer,
  StepEvent,
  WarningEvent,
} from '../train/events.js';
import type { Chart } from './chart.js';
import { CHARTS_SCRIPT } from './charts-script.js';
import { dynamicsCharts, firstStepsCharts } from './dynamics-charts.js';
import { firstStepsSection, modelSection, warningsSection } from './dynamics-sections.js';
import { escape, inlineJson } from './html.js';
import { STYLE } from './style.js';
import { timeTable } from './time-table.js';

/** Everything that the page shows. */
export interface ReportData {
  readonly name: string;
  readonly steps: StepEvent[];
  readonly evals: EvalEvent[];
  /** The newest of each evaluation. */
  readonly answers: Map<string, AnswersEvent>;
  readonly quarantined: QuarantineEvent[];
  numQuarantined: number;
  /** A few at most; see `Notices`. */
  readonly notices?: NoticeEvent[];
  /** The first of each kind. */
  readonly warnings: WarningEvent[];
  model: ModelEvent | undefined;
  readonly checkpoints?: CheckpointEvent[];
  readonly failedCheckpoints?: CheckpointFailedEvent[];
  end: EndEvent | undefined;
  readonly config: unknown;
}

/** A whole HTML document that loads nothing from elsewhere. */
export function renderReport(data: ReportData): string {
  const { script, style } = uplot();
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(data.name)} - Sluice</title>
<style>${style}${STYLE}</style>
</head>
<body>
<header><h1>${escape(data.name)}</h1><p>${escape(summaryOf(data))}</p>${failure(data)}</header>
${warningsSection(data.warnings)}
<section class="tiles">${tiles(data).join('')}</section>
<section class="charts" id="charts"></section>
${firstStepsSection(data.steps)}
${evaluations(data.evals)}
${[...data.answers.values()].map((event) => answers(event, data.answers.size > 1)).join('')}
${modelSection(data.model, data.steps)}
${time(data)}
${quarantine(data)}
${notices(data)}
${checkpoints(data)}
<details><summary>Configuration</summary><pre>${escape(JSON.stringify(data.config, null, 2))}</pre></details>
<script type="application/json" id="data">${inlineJson(chartsOf(data))}</script>
<script>${script}</script>
<script>${CHARTS_SCRIPT}</script>
</body>
</html>
`;
}

function uplot(): { script: string; style: string } {
  const folder = join(dirname(createRequire(import.meta.url).resolve('uplot/package.json')), 'dist');
  return {
    script: readFileSync(join(folder, 'uPlot.iife.min.js'), 'utf8'),
    style: readFileSync(join(folder, 'uPlot.min.css'), 'utf8'),
  };
}

function summaryOf({ end, steps }: ReportData): string {
  if (!end) return `ended after step ${steps.at(-1)?.step ?? 0}, before all was accounted for`;
  const { issued, trained, dropped, quarantined } = end.ledger;
  const how = { complete: '', stopped: 'stopped by a signal after ', failed: 'failed after ' }[end.outcome];
  return (
    `${how}${end.steps} steps in ${end.seconds.toFixed(0)} s; ${issued} samples issued = ${trained} trained + ` +
    `${dropped} dropped + ${quarantined} quarantined`
  );
}

function failure({ end }: ReportData): string {
  return end?.error === undefined ? '' : `<pre class="failure">${escape(end.error)}</pre>`;
}

function tiles({ steps, evals, end }: ReportData): string[] {
  const result: string[] = [];
  const newest = new Map(evals.map((event) => [event.name, event]));
  for (const event of newest.values()) {
    for (const [score, value] of Object.entries(event.scores)) {
      if (score.includes(':')) continue;
      const name = newest.size > 1 ? `${event.name}: ${score}` : score;
      result.push(tile(value.toFixed(3), `${name}, ${event.count} held-out samples`));
    }
  }
  const step = steps.at(-1);
  if (step) {
    const recent = steps.slice(-20);
    const busy = sum(recent, ({ stepMs, waitMs }) => stepMs + waitMs);
    result.push(tile(mean(recent, ({ loss }) => loss).toFixed(4), 'loss, mean of the last 20 steps'));
    result.push(tile(Math.round((sum(recent, ({ tokens }) => tokens) / busy) * 1000).toString(), 'tokens/s'));
    const wait = sum(steps, ({ waitMs }) => waitMs);
    const all = sum(steps, ({ stepMs, waitMs }) => stepMs + waitMs);
    result.push(tile(`${((wait / all) * 100).toFixed(1)}%`, 'of the time the device waited for data'));
    const used = recent.filter(({ mfu }) => mfu !== undefined);
    if (used.length > 0) {
      result.push(
        tile(`${(100 * mean(used, ({ mfu = 0 }) => mfu)).toFixed(1)}%`, "MFU: of the machine's peak"),
      );
    }
  }
  if (end && end.peakBytes > 0) {
    result.push(tile(`${(end.peakBytes / 1e6).toFixed(1)} MB`, 'most sample bytes in flight'));
  }
  return result;
}

function tile(value: string, label: string): string {
  return `<div class="tile"><b>${escape(value)}</b><span>${escape(label)}</span></div>`;
}

function chartsOf({ steps, evals }: ReportData): Chart[] {
  const charts: Chart[] = [];
  const x = steps.map(({ step }) => step);
  const series = (
    title: string,
    unit: string,
    value: (step: StepEvent) => number | null,
    extra: Partial<Chart> = {},
  ) => charts.push({ title, unit, labels: [title], data: [x, steps.map(value)], ...extra });
  if (steps.length > 0) {
    charts.push({
      title: 'Loss',
      unit: 'nats a token',
      labels: ['each step', 'smoothed'],
      data: [x, steps.map(({ loss }) => loss), smoothed(steps.map(({ loss }) => loss))],
    });
  }
  if (evals.length > 0) charts.push(evaluationChart(evals));
  if (steps.length > 0) {
    series('Gradient norm', 'before clipping', ({ gradNorm }) => gradNorm || null, { log: true });
    charts.push(...dynamicsCharts(steps));
    series('Learning rate', '', ({ lr }) => lr);
    series('Wait share', 'of each step', ({ waitMs, stepMs }) => waitMs / Math.max(1e-3, waitMs + stepMs), {
      share: true,
    });
    series('Step time', 'ms', ({ stepMs }) => stepMs);
    charts.push(...firstStepsCharts(steps));
  }
  return charts;
}

/** A curve for each score of each evaluation. */
function evaluationChart(evals: readonly EvalEvent[]): Chart {
  const x = [...new Set(evals.map(({ step }) => step))].sort((a, b) => a - b);
  const many = new Set(evals.map(({ name }) => name)).size > 1;
  const curves = new Map<string, (number | null)[]>();
  for (const { step, name, scores } of evals) {
    for (const [score, value] of Object.entries(scores)) {
      const label = many ? `${name}: ${score}` : score;
      const curve = curves.get(label) ?? x.map(() => null);
      curve[x.indexOf(step)] = value;
      curves.set(label, curve);
    }
  }
  return {
    title: 'Evaluation',
    unit: 'share of held-out samples',
    share: true,
    labels: [...curves.keys()],
    data: [x, ...curves.values()],
  };
}

function smoothed(values: readonly number[]): number[] {
  let state = values[0] ?? 0;
  return values.map((value) => (state += 0.08 * (value - state)));
}

function evaluations(evals: readonly EvalEvent[]): string {
  if (evals.length === 0) return '';
  const names = [...new Set(evals.flatMap(({ scores }) => Object.keys(scores)))];
  const rows = evals.map(
    ({ step, name, count, scores }) =>
      `<tr><td>${step}</td><td>${escape(name)}</td><td>${count}</td>${names
        .map((score) => `<td>${scores[score]?.toFixed(3) ?? ''}</td>`)
        .join('')}</tr>`,
  );
  const head = ['step', 'evaluation', 'samples', ...names].map((name) => `<th>${escape(name)}</th>`).join('');
  return `<section><h2>Evaluations</h2><div class="wide"><table><thead><tr>${head}</tr></thead><tbody>${rows.join('')}</tbody></table></div></section>`;
}

function answers({ name, step, answers }: AnswersEvent, many: boolean): string {
  if (answers.length === 0) return '';
  return `<section><h2>Answers${many ? ` of ${escape(name)}` : ''} at step ${step}</h2><div class="answers">${answers.map(card).join('')}</div></section>`;
}

function card({ prompt, reference, answer, picture }: SampleAnswer): string {
  const right = answer.trim() === reference.trim();
  const image = picture ? `<img src="${escape(picture)}" alt="">` : '';
  const expected = right ? '' : `<span class="expected">expected ${escape(reference)}</span>`;
  return `<figure class="${right ? 'right' : 'wrong'}">${image}<figcaption>${escape(prompt)}<b>${escape(answer) || '(nothing)'}</b>${expected}</figcaption></figure>`;
}

function time({ end }: ReportData): string {
  const lines = end ? timeTable(end) : [];
  if (lines.length === 0) return '';
  return `<section><h2>Where the time went</h2><pre>${escape(lines.join('\n'))}</pre></section>`;
}

function quarantine({ quarantined, numQuarantined }: ReportData): string {
  if (numQuarantined === 0) return '';
  const rows = quarantined.map(
    ({ row, stage, error }) =>
      `<tr><td>${escape(row)}</td><td>${escape(stage)}</td><td>${escape(error)}</td></tr>`,
  );
  return `<section><h2>${numQuarantined} quarantined rows</h2><table><thead><tr><th>row</th><th>stage</th><th>reason</th></tr></thead><tbody>${rows.join('')}</tbody></table></section>`;
}

function checkpoints({ checkpoints: written = [], failedCheckpoints = [] }: ReportData): string {
  if (written.length + failedCheckpoints.length === 0) return '';
  const ms = (value: number) => `${value.toFixed(0)} ms`;
  const rows = [
    ...written.map(({ step, path, bytes, copyMs, writeMs, fault = '' }) => ({
      step,
      cells: [path, `${(bytes / 1e6).toFixed(1)} MB`, ms(copyMs), ms(writeMs), fault],
    })),
    ...failedCheckpoints.map(({ step, path, error }) => ({ step, cells: [path, '', '', '', error] })),
  ].sort((a, b) => a.step - b.step);
  const head = ['step', 'folder', 'copied', 'training waited', 'written in', 'fault'];
  const row = (cells: readonly (string | number)[], tag: 'td' | 'th') =>
    `<tr>${cells.map((cell) => `<${tag}>${escape(String(cell))}</${tag}>`).join('')}</tr>`;
  const body = rows.map(({ step, cells }) => row([step, ...cells], 'td')).join('');
  return `<section><h2>Checkpoints</h2><table><thead>${row(head, 'th')}</thead><tbody>${body}</tbody></table></section>`;
}

function notices({ notices = [] }: ReportData): string {
  if (notices.length === 0) return '';
  const total = sum(notices, ({ count = 1 }) => count);
  const rows = notices.map(
    ({ row, stage, message }) =>
      `<tr><td>${escape(row)}</td><td>${escape(stage)}</td><td>${escape(message)}</td></tr>`,
  );
  return `<section><h2>${total} ${total === 1 ? 'row' : 'rows'} used in part</h2><table><thead><tr><th>row</th><th>stage</th><th>what was left out</th></tr></thead><tbody>${rows.join('')}</tbody></table></section>`;
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}

function mean<T>(items: readonly T[], value: (item: T) => number): number {
  return sum(items, value) / Math.max(1, items.length);
}
