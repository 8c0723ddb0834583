// The house has floors: what a file imports lies on a floor below its own, or in its own folder, and no imports go
// round in a circle. Types count too: a type is as much a thing to know about as a function.

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

// The folders and root files of src, lowest floor first. Those of one floor do not know each other,
// except in the pairs below.
const floors = [
  ['errors', 'schema', 'parts', 'digest', 'version', 'lock', 'retry'],
  ['flow', 'text', 'image', 'audio', 'hub', 'native'],
  ['data', 'tensor'],
  ['nn'],
  ['optim', 'peft', 'distributed', 'checkpoint'],
  ['models'],
  ['generate'],
  ['device'],
  ['train', 'eval'],
  ['report', 'cli', 'index', 'testing'],
];
const neighbours = new Set([
  ...['schema>errors', 'parts>errors', 'parts>schema', 'digest>parts', 'retry>errors'],
  ...['image>native', 'audio>native'],
  ...['eval>train', 'train>eval'],
  ...['cli>report', 'index>report', 'index>cli', 'cli>index'],
]);
/** All others reach libtorch through tensor. */
const nativeUsers = new Set(['native', 'tensor', 'image', 'audio', 'distributed', 'optim', 'cli']);

type Sources = ReadonlyMap<string, string>;

/** Every import of ours that breaks a rule, a line each. @param sources text by path relative to src */
function faults(sources: Sources): string[] {
  const edges = [...sources].flatMap(([file, text]) => importsOf(file, text));
  return [...edges.flatMap((edge) => floorFault(edge)), ...cycles(edges)];
}

interface Edge {
  readonly from: string;
  readonly to: string;
}

function importsOf(from: string, text: string): Edge[] {
  return ts
    .preProcessFile(text, true, true)
    .importedFiles.filter(({ fileName }) => fileName.startsWith('.'))
    .map(({ fileName }) => ({ from, to: normalize(join(dirname(from), fileName)).replace(/\.js$/, '.ts') }));
}

function floorFault({ from, to }: Edge): string[] {
  const [home, goal] = [partOf(from), partOf(to)];
  const [homeFloor, goalFloor] = [floorOf(home), floorOf(goal)];
  const said = `src/${from} imports ${to}`;
  if (homeFloor < 0) return [`${said}, and ${home} is on no floor: give it one in test/floors.test.ts`];
  if (home === goal) return [];
  if (goalFloor < 0) return [`${said}, which is on no floor: give ${goal} one in test/floors.test.ts`];
  if (goal === 'native' && !nativeUsers.has(home))
    return [`${said}: only tensor and a few others know native`];
  if (goalFloor > homeFloor)
    return [`${said}: ${home} (floor ${homeFloor}) is below ${goal} (floor ${goalFloor})`];
  if (goalFloor === homeFloor && !neighbours.has(`${home}>${goal}`)) {
    return [`${said}: ${home} and ${goal} share floor ${homeFloor} and do not know each other`];
  }
  return [];
}

/** The folder, or root file, of src that a path belongs to. */
function partOf(path: string): string {
  return (path.split('/')[0] ?? '').replace(/\.ts$/, '');
}

function floorOf(part: string): number {
  return floors.findIndex((floor) => floor.includes(part));
}

/** Each circle of imports once, by depth-first search. */
function cycles(edges: readonly Edge[]): string[] {
  const next = new Map<string, string[]>();
  for (const { from, to } of edges) next.set(from, [...(next.get(from) ?? []), to]);
  const state = new Map<string, 'open' | 'done'>();
  const found: string[] = [];
  const visit = (file: string, way: readonly string[]): void => {
    if (state.get(file) === 'done') return;
    if (state.get(file) === 'open') {
      found.push(`imports go round: ${[...way.slice(way.indexOf(file)), file].join(' -> ')}`);
      return;
    }
    state.set(file, 'open');
    for (const to of next.get(file) ?? []) visit(to, [...way, file]);
    state.set(file, 'done');
  };
  for (const file of next.keys()) visit(file, []);
  return found;
}

function readSources(): Sources {
  const root = fileURLToPath(new URL('../src/', import.meta.url));
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((path) =>
    path.endsWith('.ts'),
  );
  return new Map(files.map((path) => [path, readFileSync(join(root, path), 'utf8')]));
}

describe('floors', () => {
  it('every import of src goes down and none goes round', () => {
    expect(faults(readSources())).toEqual([]);
  });

  it('an import that goes up is named with its file', () => {
    const planted = new Map([['nn/linear.ts', "import type { Step } from '../train/step.js';"]]);
    expect(faults(planted)).toEqual([
      'src/nn/linear.ts imports train/step.ts: nn (floor 3) is below train (floor 8)',
    ]);
  });

  it('re-exports and imports on demand count', () => {
    const text = "export * from '../train/step.js'; const later = () => import('../eval/score.js');";
    expect(faults(new Map([['flow/map.ts', text]]))).toHaveLength(2);
  });

  it('neighbours on one floor do not know each other', () => {
    const planted = new Map([['peft/lora.ts', "import { adamw } from '../optim/adamw.js';"]]);
    expect(faults(planted)).toEqual([
      'src/peft/lora.ts imports optim/adamw.ts: peft and optim share floor 4 and do not know each other',
    ]);
  });

  it('native is known to few', () => {
    const planted = new Map([
      ['nn/linear.ts', "import { loadAddon } from '../native/loader.js';"],
      ['tensor/tensor.ts', "import { loadAddon } from '../native/loader.js';"],
    ]);
    expect(faults(planted)).toEqual([
      'src/nn/linear.ts imports native/loader.ts: only tensor and a few others know native',
    ]);
  });

  it('a folder without a floor is named', () => {
    expect(faults(new Map([['attic/box.ts', "import '../errors.js';"]]))).toEqual([
      'src/attic/box.ts imports errors.ts, and attic is on no floor: give it one in test/floors.test.ts',
    ]);
  });

  it('a circle inside one folder is shown whole', () => {
    const planted = new Map([
      ['flow/a.ts', "import './b.js';"],
      ['flow/b.ts', "import './c.js';"],
      ['flow/c.ts', "import './a.js';"],
    ]);
    expect(faults(planted)).toEqual(['imports go round: flow/a.ts -> flow/b.ts -> flow/c.ts -> flow/a.ts']);
  });
});
