// Progress for people: a moving line on a terminal, now and then a line elsewhere; evaluations, quarantined rows and
// checkpoints as they come, the account of all samples at the end.

import cliProgress from 'cli-progress';
import { timeTable } from './time-table.js';
import type {
  EndEvent,
  EvalEvent,
  NoticeEvent,
  RunEvent,
  StallEvent,
  StepEvent,
  WarningEvent,
} from '../train/events.js';
import type { Sink } from '../train/sink.js';

/** Milliseconds between lines where there is no terminal. */
const QUIET_MS = 10_000;
/** Weight of the newest step in the smoothed loss and rates. */
const SMOOTHING = 0.1;

/** @param out where it is shown: process.stdout */
export function progress(out: NodeJS.WriteStream = process.stdout): Sink {
  const terminal = out.isTTY;
  const bar = new cliProgress.SingleBar({
    stream: out,
    format: '{bar} step {value}/{total}  {line}',
    barsize: 24,
    hideCursor: true,
    clearOnComplete: true,
    linewrap: false,
  });
  let maxSteps = 0;
  let barShown = false;
  let lastLine = -Infinity;
  const smooth = { loss: NaN, tokensPerSecond: NaN, waitShare: NaN, secondsPerStep: NaN };

  const say = (line: string) => {
    if (barShown) bar.stop();
    out.write(`${line}\n`);
    if (barShown) bar.start(maxSteps, smoothStep, { line: statusOf(smooth, maxSteps - smoothStep) });
  };
  let smoothStep = 0;

  const onStep = (event: StepEvent) => {
    follow(smooth, event);
    smoothStep = event.step;
    const status = statusOf(smooth, maxSteps - event.step);
    if (terminal) {
      if (!barShown) bar.start(maxSteps, event.step, { line: status });
      barShown = true;
      bar.update(event.step, { line: status });
    } else if (performance.now() - lastLine > QUIET_MS || event.step === maxSteps) {
      out.write(`step ${event.step}/${maxSteps}  ${status}\n`);
      lastLine = performance.now();
    }
  };

  return {
    name: 'progress',
    start: (context) => {
      maxSteps = context.maxSteps ?? 0;
      out.write(`${context.name}: results go to ${context.outDir}\n`);
    },
    onEvent: (event: RunEvent) => {
      switch (event.event) {
        case 'step':
          return onStep(event);
        case 'eval':
          return say(evaluationLine(event));
        case 'quarantine':
          return say(`quarantined ${event.row} in ${event.stage}: ${event.error}`);
        case 'notice':
          return say(noticeLine(event));
        case 'stall':
          return say(stallLine(event));
        case 'detach':
          return say(
            `${event.sink} failed${event.row ? ` at ${event.row}` : ''} and gets no more: ${event.error}`,
          );
        case 'checkpoint':
          return say(`checkpoint ${event.path}`);
        case 'checkpoint-failed': // the run warns of it on stderr
          return;
        case 'end':
          if (barShown) bar.stop();
          barShown = false;
          say(endLine(event));
          return timeTable(event).forEach(say);
        case 'warning':
          return say(warningLines(event));
        case 'answers':
        case 'model':
          return;
        default:
          event satisfies never;
      }
    },
    close: () => {
      if (barShown) bar.stop();
      barShown = false;
    },
  };
}

interface Smooth {
  loss: number;
  tokensPerSecond: number;
  waitShare: number;
  secondsPerStep: number;
}

function follow(smooth: Smooth, { loss, tokens, stepMs, waitMs }: StepEvent): void {
  const total = Math.max(1e-3, stepMs + waitMs);
  const blend = (before: number, now: number) =>
    Number.isNaN(before) ? now : before + SMOOTHING * (now - before);
  smooth.loss = blend(smooth.loss, loss);
  smooth.tokensPerSecond = blend(smooth.tokensPerSecond, (tokens / total) * 1000);
  smooth.waitShare = blend(smooth.waitShare, waitMs / total);
  smooth.secondsPerStep = blend(smooth.secondsPerStep, total / 1000);
}

function statusOf({ loss, tokensPerSecond, waitShare, secondsPerStep }: Smooth, stepsLeft: number): string {
  return [
    `loss ${loss.toFixed(4)}`,
    `${Math.round(tokensPerSecond)} tokens/s`,
    `wait ${percent(waitShare)}`,
    `${duration(secondsPerStep * stepsLeft)} left`,
  ].join('  ');
}

function noticeLine({ row, stage, message, count }: NoticeEvent): string {
  return `${row} in ${stage}: ${message}${count === undefined ? '' : `; ${count} notices like it were not shown`}`;
}

function warningLines({ step, message, remedy }: WarningEvent): string {
  const when = step === 0 ? 'before the first step' : `at step ${step}`;
  return `warning ${when}: ${message}\n  what to do: ${remedy}`;
}

function stallLine({ stage, row, ms }: StallEvent): string {
  return `the step has waited for ${duration(ms / 1000)}, for ${row === undefined ? stage : `${row} in ${stage}`}`;
}

function evaluationLine({ name, step, count, scores }: EvalEvent): string {
  const shown = Object.entries(scores).map(([score, value]) => `${score} ${value.toFixed(3)}`);
  return `${name} at step ${step}, ${count} samples: ${shown.join('  ')}`;
}

function endLine({ ledger, seconds, waitMs, steps, peakBytes, mfu }: EndEvent): string {
  const { issued, trained, dropped, quarantined } = ledger;
  const samples = `${issued} samples issued = ${trained} trained + ${dropped} dropped + ${quarantined} quarantined`;
  const time = `${duration(seconds)}, of which ${duration(waitMs / 1000)} waiting for data`;
  const used = mfu === undefined ? '' : `; MFU ${percent(mfu)}`;
  return `${steps} ${steps === 1 ? 'step' : 'steps'} in ${time}; ${samples}; at most ${(peakBytes / 1e6).toFixed(1)} MB in flight${used}`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)}%`;
}

/** '75s', '12m 05s', '3h 20m' */
function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 100) return `${whole}s`;
  if (whole < 6000) return `${Math.floor(whole / 60)}m ${String(whole % 60).padStart(2, '0')}s`;
  return `${Math.floor(whole / 3600)}h ${String(Math.floor((whole % 3600) / 60)).padStart(2, '0')}m`;
}
