// What `pipe inspect` shows: an inspection as tables for people.

import type { Inspection } from '../models/gemma3n/index.js';

type DeadFacts = NonNullable<Inspection['weights']>['dead'][number];
type Row = readonly (string | number)[];

const partNames = {
  text: 'text',
  tokenEmbeddings: 'token embeddings',
  perLayerEmbeddings: 'per-layer embeddings',
  outputHead: 'output head',
  vision: 'image tower',
  visionProjector: 'image projector',
  audio: 'audio tower',
  audioProjector: 'audio projector',
} as const satisfies Record<keyof Inspection['parameters']['parts'], string>;

/** Lines to print. */
export function inspectionText(found: Inspection & { readonly name?: string }): string {
  const parts = [
    ...(found.adapter ? [adapter(found.adapter)] : []),
    parameters(found),
    layers(found),
    memory(found),
    ...(found.recipe ? [recipe(found, found.recipe)] : []),
    ...(found.weights ? [weights(found)] : []),
  ];
  return `${parts.join('\n\n')}\n`;
}

function adapter(facts: NonNullable<Inspection['adapter']>): string {
  const { kind, rank, alpha, rsLora, dropout, targets, modules, saved, quantised } = facts;
  const scaling = `rank ${rank}, alpha ${alpha}${rsLora ? ', rank-stabilised' : ''}`;
  const each = Object.entries(targets).map(([name, count]) => `${name} (${count})`);
  return [
    `${kind === 'dora' ? 'DoRA' : 'LoRA'} adapter of ${facts.base ?? 'a model that it does not name'}: ${scaling}` +
      (dropout > 0 ? `, dropout ${dropout}` : ''),
    `${grouped(facts.parameters)} parameters beside ${modules} modules: ${each.join(', ')}`,
    ...(saved.length > 0
      ? [`${grouped(facts.savedParameters)} parameters learnt whole: ${shortList(saved)}`]
      : []),
    ...(quantised ? [`its base was held in ${quantised.format} while it learnt`] : []),
    'all below is of its base',
  ].join('\n');
}

/** Names as far as a reader wants them. */
function shortList(names: readonly string[], most = 4): string {
  const first = names.slice(0, most).join(', ');
  return names.length > most ? `${first} and ${names.length - most} more` : first;
}

function parameters({ parameters: p, kind, checkpoint }: Inspection): string {
  const rows: Row[] = Object.entries(partNames)
    .filter(([part]) => p.parts[part as keyof typeof partNames] > 0)
    .map(([part, name]) => {
      const count = p.parts[part as keyof typeof partNames];
      return [name, grouped(count), billions(count)];
    });
  const sum = (name: string, count: number, note: string): Row => [
    name,
    grouped(count),
    billions(count),
    note,
  ];
  const what = kind === 'text' ? 'text alone' : 'text and towers';
  return [
    `${checkpoint ?? 'configuration'}: Gemma 3n, ${what}`,
    '',
    table(
      ['parameters', '', ''],
      [
        ...rows,
        ...(p.dead > 0
          ? [
              sum(
                'dead keys and values',
                p.dead,
                'of sharing layers: a checkpoint may hold them, nothing reads them',
              ),
            ]
          : []),
        sum('all', p.total, p.dead > 0 ? 'with the dead ones, as published checkpoints count' : ''),
        sum('effective', p.effective, 'as Google counts: text and dead, without embedding tables'),
        sum('resident', p.resident, 'with per-layer embeddings off the device'),
      ],
    ),
  ].join('\n');
}

/** Layers of one kind that follow each other on one line. */
function layers({ layers: all }: Inspection): string {
  const rows: Row[] = all.map((layer) => [
    layer.layer,
    layer.window === undefined ? layer.attention : `${layer.attention} ${layer.window}`,
    layer.keysValuesOf === layer.layer ? 'own' : `of ${layer.keysValuesOf}`,
    layer.intermediateSize,
    layer.sparsity > 0 ? layer.sparsity : '-',
  ]);
  return table(['layer', 'attention', 'keys, values', 'feed-forward', 'sparsity'], rows);
}

function memory({ memory: m }: Inspection): string {
  const { batch, length, images, clips, dtype, rank, freeze } = m.options;
  const rows = [
    ['inference', m.inference],
    [`LoRA, rank ${rank}`, m.lora],
    ...m.qlora.map((need) => [qloraName(need), need] as const),
    ['full fine-tuning', m.full],
  ] as const;
  const heads = [
    'memory',
    'weights',
    'gradients',
    'optimizer',
    'activations',
    'K/V cache',
    'at most',
    'PLE off',
  ];
  const media = `${images > 0 ? `, ${images} images` : ''}${clips > 0 ? `, ${clips} clips` : ''}`;
  const saved = m.kvCache.plainBytes / Math.max(1, m.kvCache.bytes);
  return [
    table(
      heads,
      rows.map(([name, need]): Row => [
        name,
        ...[
          need.weights,
          need.gradients,
          need.optimizer,
          need.activations,
          need.kvCache,
          need.peak,
          need.peakEmbeddingsOff,
        ].map(size),
      ]),
    ),
    `for ${batch} x ${length} tokens${media} in ${dtype}; activations are estimated`,
    `LoRA: ${grouped(m.lora.adapterParameters)} adapter parameters in float32; full: ${grouped(m.full.trainedParameters)} learn` +
      (freeze.length > 0 ? `, ${freeze.join(', ')} frozen` : ''),
    `QLoRA: ${m.qlora.map((need) => `${qloraName(need).slice(7)} ${need.share.toFixed(3)}x`).join(', ')} of ${dtype}'s bytes for what is quantised`,
    `with checkpointing the activations of LoRA are ${size(m.lora.activationsCheckpointed)}, of full fine-tuning ${size(m.full.activationsCheckpointed)}`,
    `an average of the weights (ema) adds ${size(m.lora.average)} to LoRA, ${size(m.full.average)} to full fine-tuning`,
    `PLE off: per-layer embeddings (${size(m.perLayerEmbeddings)}) frozen and off the device`,
    `K/V cache: shared layers once and sliding windows make it ${saved.toFixed(1)}x smaller than a plain one`,
  ].join('\n');
}

/** 'QLoRA, NF4', 'QLoRA, NF4 with embeddings, towers' */
function qloraName({ quantisation }: Inspection['memory']['qlora'][number]): string {
  const { format, embeddings, towers } = quantisation;
  const more = [...(embeddings ? ['embeddings'] : []), ...(towers ? ['towers'] : [])].join(', ');
  return `QLoRA, ${format === 'nf4' ? 'NF4' : format}${more === '' ? '' : ` with ${more}`}`;
}

function recipe(
  { name, memory: { options } }: Inspection & { readonly name?: string },
  { method, peak }: NonNullable<Inspection['recipe']>,
): string {
  const how = method === 'full' ? 'full fine-tuning' : `${method}, rank ${options.rank}`;
  return `${name ?? 'recipe'}: ${how}, at most ${size(peak)} on the device`;
}

function weights({ weights: found }: Inspection): string {
  if (!found) return '';
  const { dead, zero, zeroRows, notFinite, outliers } = found;
  const deadParameters = dead.reduce((sum, { parameters: count }) => sum + count, 0);
  const allZero = dead.every(({ isZero }) => isZero);
  const list = (mark: string, names: readonly string[]): string[] => [
    ...names.slice(0, 20).map((name) => `  ${mark} ${name}`),
    ...(names.length > 20 ? [`  ${mark} and ${names.length - 20} more`] : []),
  ];
  return [
    table(
      ['dtype', 'tensors', 'parameters', 'bytes'],
      found.dtypes.map(({ dtype, tensors, parameters: count, bytes }): Row => [
        dtype,
        tensors,
        grouped(count),
        size(bytes),
      ]),
    ),
    `${found.files} ${found.files === 1 ? 'file' : 'files'}, ${size(found.bytes)}`,
    dead.length === 0
      ? 'no dead weights stored'
      : `${dead.length} dead tensors of sharing layers (${grouped(deadParameters)} parameters), ${allZero ? 'all zero' : 'not all zero'}:`,
    ...list('dead', deadLayers(dead)),
    ...verdict('warning: zero throughout', 'zero', zero),
    ...verdict(
      'warning: values that are no numbers',
      '!',
      notFinite.map(({ name, nan, infinite }) => `${name}: ${nan} NaN, ${infinite} infinite`),
    ),
    ...verdict(
      'magnitudes far from their kind',
      'rms',
      outliers.map(
        ({ name, rms, median, ratio }) =>
          `${name}: ${rms.toPrecision(3)}, ${ratio.toPrecision(3)} times the median ${median.toPrecision(3)}`,
      ),
    ),
    ...verdict(
      'rows that are zero throughout',
      'rows',
      zeroRows.map(({ name, rows, of }) => `${name}: ${rows} of ${of}`),
    ),
  ].join('\n');

  function verdict(title: string, mark: string, names: readonly string[]): string[] {
    return names.length === 0 ? [] : [`${title}: ${names.length}`, ...list(mark, names)];
  }
}

/** Dead weights by name, with the layers that hold them: 'self_attn.k_proj.weight of layers 20-29'. */
function deadLayers(dead: readonly DeadFacts[]): string[] {
  const layersOf = new Map<string, number[]>();
  for (const { name, isZero } of dead) {
    const [, layer = '', rest = name] = /\.layers\.(\d+)\.(.+)$/.exec(name) ?? [];
    const key = `${rest}${isZero ? '' : ', not zero,'}`;
    layersOf.set(key, [...(layersOf.get(key) ?? []), Number(layer)]);
  }
  return [...layersOf].map(([key, layers]) => `${key} of layers ${rangesOf(layers)}`);
}

/** [1, 2, 3, 5] -> '1-3, 5' */
function rangesOf(numbers: readonly number[]): string {
  const ranges: [first: number, last: number][] = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const range = ranges.at(-1);
    if (range?.[1] === number - 1) range[1] = number;
    else ranges.push([number, number]);
  }
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(', ');
}

/** Columns as wide as their widest cell; numbers to the right. */
function table(heads: readonly string[], rows: readonly Row[]): string {
  const all = [heads, ...rows.map((row) => row.map(String))];
  const numColumns = Math.max(...all.map((row) => row.length));
  const widths = Array.from({ length: numColumns }, (_, i) =>
    Math.max(...all.filter((row) => row.length > i && i < heads.length).map((row) => row[i]?.length ?? 0), 0),
  );
  return all
    .map((row) =>
      row
        .map((cell, i) =>
          i === 0 || i >= heads.length ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function grouped(count: number): string {
  return count.toLocaleString('en-US');
}

function billions(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(2)}B`;
  return count >= 1e6 ? `${(count / 1e6).toFixed(1)}M` : '';
}

/** '1.5 GB', '20.3 MB', '512 kB', '-' */
export function size(bytes: number): string {
  if (bytes === 0) return '-';
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1e3)} kB`;
}
