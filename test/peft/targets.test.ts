// Which modules a declaration means, and what is refused before anything is changed.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { applyAdapter, type Gemma3n, removeAdapter } from '../../src/models/gemma3n/index.js';
import { fromPretrained } from '../../src/models/gemma3n/index.js';
import { type AdapterPart, dora, lora } from '../../src/peft/index.js';
import { referencePath } from '../models/text-reference.js';
import { smallModel } from './adapter-reference.js';

let model: Gemma3n;
let towers: Gemma3n;
beforeAll(async () => {
  model = await smallModel();
  towers = await fromPretrained(referencePath('../tiny-gemma3n'));
});
afterAll(() => {
  model.dispose();
  towers.dispose();
});

/** Modules by name, with their ranks. */
function adapted(adapter: AdapterPart, to: Gemma3n = model): Record<string, number> {
  applyAdapter(to, adapter, { name: 'x' });
  const found = [...to.namedParameters()].flatMap(([name, { shape }]) =>
    name.endsWith('.lora_A.x.weight') ? [[name.replace('.lora_A.x.weight', ''), shape[0]!] as const] : [],
  );
  removeAdapter(to, 'x');
  return Object.fromEntries(found);
}
const namesOf = (adapter: AdapterPart, to?: Gemma3n): string[] => Object.keys(adapted(adapter, to));

describe('targets', () => {
  it('are by default the projections of the text tower, never the dead ones of sharing layers', () => {
    const names = namesOf(lora({ rank: 1 }));
    const kinds = (layer: number) =>
      names.filter((name) => name.includes(`.layers.${layer}.`)).map((name) => name.split('.').at(-1));
    expect(kinds(0).sort()).toEqual([
      'down_proj',
      'gate_proj',
      'k_proj',
      'o_proj',
      'q_proj',
      'up_proj',
      'v_proj',
    ]);
    expect(kinds(4).sort()).toEqual(['down_proj', 'gate_proj', 'o_proj', 'q_proj', 'up_proj']);
    expect(names).toHaveLength(3 * 7 + 3 * 5);
  });

  it('leave the towers alone unless they are named', () => {
    expect(
      namesOf(lora({ rank: 1 }), towers).every((name) => name.startsWith('model.language_model.layers.')),
    ).toBe(true);
    expect(namesOf(lora({ rank: 1, targets: 'projector' }), towers)).toEqual([
      'model.embed_vision.embedding_projection',
      'model.embed_audio.embedding_projection',
    ]);
    const audio = namesOf(lora({ rank: 1, targets: ['audio'] }), towers);
    expect(audio.length).toBeGreaterThan(4);
    expect(audio.every((name) => name.startsWith('model.audio_tower.'))).toBe(true);
    expect(() => adapted(lora({ rank: 1, targets: 'vision' }), towers)).toThrow(
      'one that matches other modules only, such as convolutions',
    );
  });

  it('are globs over names or the ends of names, and regular expressions', () => {
    expect(namesOf(lora({ rank: 1, targets: 'layers.1.self_attn' }))).toEqual(
      ['q', 'k', 'v', 'o'].map((kind) => `model.layers.1.self_attn.${kind}_proj`),
    );
    expect(
      namesOf(lora({ rank: 1, targets: ['layers.*.mlp.up_proj', 'model.layers.0.mlp.down_proj'] })),
    ).toHaveLength(7);
    const expression = /layers\.[01]\.mlp\.(UP|down)_proj$/i;
    expect(namesOf(lora({ rank: 1, targets: expression }))).toHaveLength(4);
    expect(namesOf(lora({ rank: 1, targets: String(expression) }))).toHaveLength(4);
  });

  it.each([
    [['q_proj', 'self_attn.q_proj'], "'q_proj' and 'self_attn.q_proj', which both match model.layers.0."],
    [['text', /up_proj$/], "'text' and '/up_proj$/', which both match model.layers.0.mlp.up_proj"],
    [['layers.1.mlp', 'layers.1.mlp'], "'layers.1.mlp' and 'layers.1.mlp', which both match model.layers.1."],
  ])('that overlap are refused: %j', (targets, received) => {
    expect(() => adapted(lora({ rank: 1, targets }))).toThrow(
      `lora.targets: expected patterns of which one alone matches a module, received ${received}`,
    );
  });

  it('that match nothing are named with what they may have meant', () => {
    expect(() => adapted(lora({ rank: 1, targets: ['q_proj', 'q_porj'] }))).toThrow(
      /lora\.targets 'q_porj': expected a pattern that matches a linear module, received one that matches nothing; did you mean [^?]*q_proj/,
    );
    expect(() => adapted(dora({ rank: 1, targets: /k_proj\.weight/ }))).toThrow(
      "dora.targets '/k_proj\\.weight/'",
    );
    expect(() => adapted(lora({ rank: 1, modulesToSave: 'nrom' }))).toThrow("modulesToSave 'nrom'");
  });

  it('that are the output head, or learn whole too, are refused', async () => {
    const plain = await smallModel('plain');
    expect(() => adapted(lora({ rank: 1, targets: 'lm_head' }), plain)).toThrow(
      'received lm_head, the output head',
    );
    expect(namesOf(lora({ rank: 1, targets: '*' }), plain)).not.toContain('lm_head');
    plain.dispose();
    expect(() => adapted(lora({ rank: 1, targets: 'up_proj', modulesToSave: 'layers.2.mlp' }))).toThrow(
      'model.layers.2.mlp.up_proj in targets, and model.layers.2.mlp in modulesToSave',
    );
  });
});

describe('ranks', () => {
  it('are of their own by pattern', () => {
    const ranks = adapted(
      lora({
        rank: 2,
        targets: ['q_proj', 'o_proj'],
        rankPattern: { 'layers.0': 5, '/layers\\.1.*o_proj/': 3 },
      }),
    );
    expect(ranks['model.layers.0.self_attn.q_proj']).toBe(5);
    expect(ranks['model.layers.1.self_attn.q_proj']).toBe(2);
    expect(ranks['model.layers.1.self_attn.o_proj']).toBe(3);
  });

  it.each([
    [lora({ rank: 0 }), /rank: Too small.*received 0/],
    [lora({ rank: 2.5 }), /rank/],
    [lora({ rank: 2, alpha: -1 }), /alpha/],
    [lora({ rank: 2, dropout: 1 }), /dropout/],
    [lora({ rank: 2, surprise: 1 } as never), /surprise: expected a known key/],
    [
      lora({ rank: 33 }),
      /rank of model\.layers\.0\.self_attn\.q_proj: expected at most 32: its matrix is 32 x 32/,
    ],
    [lora({ rank: 2, rankPattern: { 'layers.0': 3, q_proj: 4 } }), /3 by 'layers\.0' and 4 by 'q_proj'/],
    [lora({ rank: 2, alphaPattern: { 'layers.0': 3, q_proj: 4 } }), /alphaPattern: expected one value/],
    [
      lora({ rank: 2, rankPattern: { embed: 3 } }),
      /rankPattern 'embed': expected a pattern that matches a target/,
    ],
    [lora({ rank: 2, targets: '/(/' }), /a glob or a regular expression/],
  ])('and other options that cannot be are refused (%#)', (adapter, message) => {
    const before = [...model.namedParameters()].length;
    expect(() => adapted(adapter)).toThrow(message);
    expect([...model.namedParameters()]).toHaveLength(before);
  });
});
