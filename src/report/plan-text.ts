// A plan in words, for people.

import type { FlowForecast, StallReport, StreamForecast, TrainingForecast } from '../train/plan-types.js';

/** The lines of `pipe plan`. */
export function planText({ name, training, evaluations }: StreamForecast): string {
  const sections: string[][] = [];
  if (training) {
    sections.push([
      `${name}: training`,
      ...trainingLines(training),
      ...flowLines(training, checkpointLines(training)),
    ]);
  }
  for (const evaluation of evaluations) {
    sections.push([
      `${name}: evaluation '${evaluation.name}'`,
      countLine(evaluation),
      ...flowLines(evaluation),
    ]);
  }
  if (sections.length === 0) sections.push([`${name}: nothing to train or to evaluate`]);
  return sections
    .map(([title, ...lines]) => [title, ...lines.map((line) => `  ${line}`)].join('\n'))
    .join('\n\n');
}

function trainingLines(training: TrainingForecast): string[] {
  const { epoch, steps, maxSteps, accumulate, endsBy, stalls } = training;
  const of = accumulate > 1 ? ` of ${accumulate} batches` : '';
  return [
    row(
      'epoch',
      epoch
        ? `${plural(epoch.items, 'item')}, ${plural(epoch.samples, 'sample')}, ${plural(epoch.batches, 'batch')}`
        : 'not counted',
    ),
    countLine(training),
    row(
      'steps',
      endsBy === 'maxSteps'
        ? `${whole(steps)}${of}: step.maxSteps ends the training`
        : `${whole(steps)}${of}: the data end before step.maxSteps, ${whole(maxSteps)}`,
    ),
    ...(stalls ? stallLines(stalls) : []),
  ];
}

function checkpointLines({ checkpointBytes, wholePeakBytes }: TrainingForecast): string[] {
  if (checkpointBytes === 0 || checkpointBytes === null) return [];
  return [
    row(
      'checkpoint',
      `${bytes(checkpointBytes)} copied while it is written; ${bytes(wholePeakBytes)} with the samples`,
    ),
  ];
}

function countLine({ items, samples, batches }: FlowForecast): string {
  return row('in all', `${plural(items, 'item')}, ${plural(samples, 'sample')}, ${plural(batches, 'batch')}`);
}

function flowLines(flow: FlowForecast, behindPeak: readonly string[] = []): string[] {
  const { tokens, paddedTokens, paddingShare, labels, images, clips, soundSeconds, longest, mix, notes } =
    flow;
  const media = [
    ...(images > 0 ? [plural(images, 'image')] : []),
    ...(clips > 0 ? [`${plural(clips, 'clip')} (${soundSeconds.toFixed(1)} s heard)`] : []),
  ];
  return [
    row('tokens', `${whole(tokens)}, and ${whole(paddedTokens)} of padding (${percent(paddingShare)})`),
    row('labels', whole(labels)),
    ...(media.length > 0 ? [row('media', media.join(', '))] : []),
    ...(longest ? [row('longest', `${plural(longest.tokens, 'token')}: ${longest.row}`)] : []),
    ...(mix
      ? [
          row(
            'mix',
            mix
              .map(
                ({ name, items, share }, i) => `${whole(items)} of source ${i} (${name}), ${percent(share)}`,
              )
              .join('; '),
          ),
        ]
      : []),
    ...settledLines(flow),
    row(
      'pool',
      `${bytes(flow.poolBytes)}${flow.maxPoolBytes === null ? '' : `, up to ${bytes(flow.maxPoolBytes)} while the device waits`}${flow.holds.length > 0 ? `; ${flow.holds.join('; ')}` : ''}`,
    ),
    row(
      'peak',
      `${bytes(flow.peakBytes)} in all; ${flow.stages.map(({ name, peakBytes }) => `${name} ${bytes(peakBytes)}`).join(', ')}`,
    ),
    ...behindPeak,
    row('scan', scanText(flow)),
    ...notes.map((note) => row('note', note)),
  ];
}

function settledLines({ dropped, quarantined, quarantinedRows, cut }: FlowForecast): string[] {
  const told = quarantinedRows.slice(0, 10);
  return [
    ...(dropped > 0 ? [row('dropped', plural(dropped, 'sample'))] : []),
    ...(cut > 0 ? [row('cut', `${plural(cut, 'sample')} of which not all is taken`)] : []),
    ...(quarantined > 0 ? [row('quarantined', plural(quarantined, 'sample'))] : []),
    ...told.map(({ row: name, stage, error }) => `  ${name}, ${stage}: ${error}`),
    ...(quarantined > told.length ? [`  and ${whole(quarantined - told.length)} more`] : []),
  ];
}

function stallLines({ stepMs, firstBatchMs, first, waitShare, limit }: StallReport): string[] {
  const stall = first
    ? `first at batch ${whole(first.batch)}, ${first.ms.toFixed(1)} ms for ${first.stage} (${first.row})`
    : 'none';
  const share = limit === 'step' ? '' : `, for ${limit}`;
  return [
    row('stalls', `${stall}; in the long run ${percent(waitShare)} of the time${share}`),
    row('first batch', `after ${firstBatchMs.toFixed(1)} ms; a step takes ${stepMs} ms`),
  ];
}

function scanText({ scan: { from, media, samples, ms, path } }: FlowForecast): string {
  const how = {
    data: 'read from the data',
    cache: 'known from an earlier scan',
    both: 'known in part, the rest read',
  };
  const depth = media === 'headers' ? 'headers of media only' : 'all media decoded';
  return `${plural(samples, 'sample')} ${how[from]}, ${depth}, ${(ms / 1000).toFixed(2)} s${path === null ? '' : `; kept in ${path}`}`;
}

function row(name: string, text: string): string {
  return `${name.padEnd(12)} ${text}`;
}

function whole(count: number): string {
  return count.toLocaleString('en-US');
}

function plural(count: number, noun: string): string {
  const many = noun.endsWith('ch') ? `${noun}es` : `${noun}s`;
  return `${whole(count)} ${count === 1 ? noun : many}`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function bytes(count: number): string {
  if (count < 2 ** 10) return `${count} B`;
  if (count < 2 ** 20) return `${(count / 2 ** 10).toFixed(1)} KiB`;
  return `${(count / 2 ** 20).toFixed(1)} MiB`;
}
