// The text of a pipeline file.

import { named, type Fit } from './fit.js';
import { sourceOf, type Layout, type Task } from './layout.js';

/** Data of one layout. */
export interface DataPart {
  readonly files: readonly string[];
  readonly layout: Layout;
  /** Why its columns were not looked at; then the layout is assumed. */
  readonly unchecked?: string;
}

export interface Recipe {
  readonly name: string;
  readonly task: Task;
  readonly model: string;
  readonly data: readonly DataPart[];
  readonly fit: Fit;
  /** What made it: the first lines say so. */
  readonly version: string;
}

/** Items that are kept for evaluation. */
const HELD_OUT = 64;
const EPOCHS = 3;

/** What an evaluation scores by, and the longest answer that it waits for. */
const SCORES = {
  exactMatch: { names: ['exactMatch', 'promptAlone'], maxNewTokens: 32 },
  wordErrorRate: { names: ['wordErrorRate', 'promptAloneWords'], maxNewTokens: 128 },
  rougeL: { names: ['rougeL'], maxNewTokens: 256 },
} as const satisfies Record<Layout['score'], unknown>;

/** TypeScript, formatted. */
export function recipeText(recipe: Recipe): string {
  const { name, task, data, fit } = recipe;
  const decodes = task !== 'text';
  const isMixed = data.length > 1;
  const readers = [...new Set(data.map(({ files }) => sourceOf(files[0]!)))];
  const imports = [
    ...data.flatMap(({ layout }) => layout.uses),
    ...[
      'adamw',
      'batch',
      'checkpoints',
      'cosine',
      'encode',
      'gemma3n',
      'metrics',
      'pipeline',
      'report',
      'sft',
    ],
    ...readers,
    ...(decodes ? ['decodeMedia'] : []),
    ...(isMixed ? ['mix'] : []),
    ...['evaluation', 'repeat', 'skip', 'take'],
    ...data.flatMap(({ layout }) => SCORES[layout.score].names),
    ...(fit.method === 'full' ? [] : [fit.method === 'dora' ? 'dora' : 'lora']),
  ];
  const media = decodes ? 'decodeMedia(), ' : '';
  const budget = [
    `tokens: ${fit.tokens}`,
    ...(fit.images > 0 ? [`images: ${fit.images}`] : []),
    ...(fit.clips > 0 ? [`clips: ${fit.clips}`] : []),
  ];
  const lines = [
    `// ${titles[task]} by ${named(fit.method)}. Written by pipe init ${recipe.version}; edit it as you like.`,
    ...fit.reasons.map((reason) => `// - ${reason}`),
    '',
    `import {`,
    ...sorted(imports).map((one) => `  ${one},`),
    `} from 'sluice';`,
    '',
    ...data.flatMap((part, i) => rowsOf(part, isMixed ? i + 1 : undefined)),
    'export default pipeline({',
    `  name: '${name}',`,
    '  seed: 1,',
    `  model: gemma3n(${quoted(recipe.model)}, {`,
    `    dtype: '${fit.dtype}',`,
    "    embeddings: 'mapped',",
    ...(fit.freeze.length > 0 ? [`    freeze: [${fit.freeze.map(quoted).join(', ')}],`] : []),
    ...(fit.method === 'qlora' ? ["    quantise: 'nf4',"] : []),
    ...(fit.method === 'full' ? [] : [`    adapter: ${adapter(fit, task)},`]),
    '  }),',
    `  source: ${source(data)},`,
    `  flow: [${media}encode({ maxTokens: ${fit.tokens} }), batch({ ${budget.join(', ')} })],`,
    '  step: sft({',
    `    optimizer: adamw({ lr: ${rate(fit.lr)}, weightDecay: 0 }),`,
    '    schedule: cosine({ warmup: 0.03, minLrRate: 0.1 }),',
    '    clipNorm: 1,',
    '    maxSteps: 500,',
    ...(fit.accumulate > 1 ? [`    accumulate: ${fit.accumulate},`] : []),
    ...(fit.checkpointing ? ['    checkpointing: true,'] : []),
    '  }),',
    '  sinks: [',
    '    metrics(),',
    '    checkpoints({ every: 100, keep: 2 }),',
    ...data.flatMap((part, i) => evaluationOf(part, isMixed ? i + 1 : undefined)),
    '    report(),',
    '  ],',
    '});',
  ];
  return `${lines.join('\n')}\n`;
}

const titles: Readonly<Record<Task, string>> = {
  image: 'Learns from pictures',
  audio: 'Learns from sound',
  mixed: 'Learns from pictures and sound',
  text: 'Learns from text',
};

/** The row's type, and the rows as conversations. @param number of the part, where there are several */
function rowsOf({ files, layout, unchecked }: DataPart, number: number | undefined): string[] {
  const suffix = number ?? '';
  const list = files.length === 1 ? quoted(files[0]!) : `[${files.map(quoted).join(', ')}]`;
  return [
    ...(unchecked === undefined
      ? []
      : [`// The columns could not be looked at: compare them. ${oneLine(unchecked)}`]),
    `/** A row: ${layout.name}. */`,
    `type Row${suffix} = ${layout.type};`,
    '',
    `const rows${suffix} = ${sourceOf(files[0]!)}(${list}, {`,
    '  shuffle: { seed: 1 },',
    `  explode: (row: Row${suffix}) =>`,
    `    ${layout.samples.replaceAll('\n', '\n  ')},`,
    `});`,
    '',
  ];
}

/** Rows but for those of evaluations, which no epoch may show. */
function source(data: readonly DataPart[]): string {
  const one = (suffix: string): string => `repeat(skip(rows${suffix}, ${HELD_OUT}), ${EPOCHS})`;
  if (data.length === 1) return one('');
  return `mix([${data.map((_, i) => `{ source: ${one(String(i + 1))} }`).join(', ')}], { stop: 'first', seed: 1 })`;
}

function evaluationOf({ layout }: DataPart, number: number | undefined): string[] {
  const suffix = number ?? '';
  const { names, maxNewTokens } = SCORES[layout.score];
  const media = layout.medium === 'text' ? '' : 'decodeMedia(), ';
  return [
    '    evaluation({',
    ...(number === undefined ? [] : [`      name: '${layout.medium}',`]),
    '      every: 100,',
    `      source: take(rows${suffix}, ${HELD_OUT}),`,
    `      flow: [${media}encode(), batch({ size: 4 })],`,
    `      scores: [${names.map((name) => `${name}()`).join(', ')}],`,
    `      maxNewTokens: ${maxNewTokens},`,
    '    }),',
  ];
}

function adapter({ method, rank }: Fit, task: Task): string {
  const targets = task === 'text' ? '' : ", targets: ['text', 'projector']";
  return `${method === 'dora' ? 'dora' : 'lora'}({ rank: ${rank}, alpha: ${2 * rank}${targets} })`;
}

/** 1e-5, 2e-4 */
function rate(lr: number): string {
  return lr.toExponential().replace('.0e', 'e');
}

function quoted(text: string): string {
  return `'${text.replace(/[\\']/g, '\\$&').replace(/\n/g, '\\n')}'`;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ');
}

function sorted(names: readonly string[]): string[] {
  const key = (name: string): string => name.replace(/^type /, '');
  return [...new Set(names)].sort((a, b) => Number(key(b) < key(b)) || (key(a) < key(b) ? -1 : 1));
}
