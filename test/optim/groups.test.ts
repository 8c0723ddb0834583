import { describe, expect, test } from 'vitest';
import { parameter } from '../../src/nn/module.js';
import { adamw, muon, sgd, type AdamWOptions } from '../../src/optim/index.js';
import { part } from '../../src/parts.js';
import { decode, z } from '../../src/schema.js';
import { full, tensor, zeros, type Tensor } from '../../src/tensor/index.js';

const NAMES = [
  'layers.0.q_proj.lora_A.weight',
  'layers.0.q_proj.lora_B.weight',
  'layers.0.norm.weight',
  'embed_tokens.weight',
];

function named(): [string, Tensor][] {
  return NAMES.map((name) => [name, parameter(name.includes('norm') ? full([2], 1) : full([2, 2], 1))]);
}

/** By how much a step of gradient 1 moves each. */
function moves(options: Parameters<typeof sgd>[0]): number[] {
  const parameters = named();
  const optimizer = sgd(options)(parameters);
  for (const [, p] of parameters) p.grad = full(p.shape, 1);
  optimizer.step();
  return parameters.map(([, p]) => Number((1 - Number(p.toTypedArray()[0])).toFixed(5)));
}

describe('groups', () => {
  test('by glob and by RegExp have rates of their own, also as a ratio, which a schedule scales', () => {
    const groups = [
      { match: 'lora_B', lrRatio: 16 },
      { match: /norm\.weight$/, lr: 0.05 },
    ];
    expect(moves({ lr: 0.01, groups })).toEqual([0.01, 0.16, 0.05, 0.01]);
    const parameters = named();
    const optimizer = sgd({ lr: 0.01, groups })(parameters);
    optimizer.lr = 0.005; // half
    for (const [, p] of parameters) p.grad = full(p.shape, 1);
    optimizer.step();
    expect(parameters.map(([, p]) => Number((1 - Number(p.toTypedArray()[0])).toFixed(5)))).toEqual([
      0.005, 0.08, 0.025, 0.005,
    ]);
  });

  test('have decays of their own, and noDecay spares what it names', () => {
    const decayed = (options: AdamWOptions): number[] => {
      const parameters = named();
      const optimizer = adamw(options)(parameters);
      for (const [, p] of parameters) p.grad = zeros(p.shape);
      optimizer.step();
      return parameters.map(([, p]) => Number((1 - Number(p.toTypedArray()[0])).toFixed(5)));
    };
    const options = { lr: 0.1, weightDecay: 0.5 };
    expect(decayed({ ...options, decay: 'matrices' })).toEqual([0.05, 0.05, 0, 0.05]);
    expect(decayed({ ...options, noDecay: ['*norm*', 'embed_tokens'] })).toEqual([0.05, 0.05, 0, 0]);
    expect(decayed({ ...options, groups: [{ match: 'lora_*', weightDecay: 0.1 }] })).toEqual([
      0.01, 0.01, 0.05, 0.05,
    ]);
  });

  test('may be lists of tensors', () => {
    const [a, b] = [parameter(full([1], 1)), parameter(full([1], 1))];
    const optimizer = sgd({ lr: 0.1 })([{ params: [a] }, { params: [b], lr: 0.01 }]);
    for (const p of [a, b]) p.grad = full([1], 1);
    optimizer.step();
    expect([a, b].map((p) => Number(Number(p.toTypedArray()[0]).toFixed(4)))).toEqual([0.9, 0.99]);
    expect(() => sgd({ lr: 0.1 })([{ params: [a], lr: 0 }])).toThrow('sgd: group lr: expected params');
  });

  test('that match nothing, overlap or have no names to match are refused', () => {
    const make = (groups: NonNullable<AdamWOptions['groups']>) => () => adamw({ lr: 1, groups })(named());
    expect(make([{ match: 'lora_C', lr: 1 }])).toThrow(
      "adamw: groups.0.match 'lora_C': expected a pattern that matches a parameter that learns, received one that matches none of 4: layers.0.q_proj.lora_A.weight",
    );
    expect(make([{ match: 'lora_*' }, { match: /lora_B/ }])).toThrow(
      "adamw: groups.0.match 'lora_*' and groups.1.match '/lora_B/': expected each parameter in one group, received 1 in both: layers.0.q_proj.lora_B.weight; make one of the patterns narrower",
    );
    expect(() => adamw({ lr: 1, groups: [{ match: '*' }] })([parameter(zeros([1]))])).toThrow(
      "adamw: groups.0.match '*': expected a pattern that matches a parameter that learns, received tensors without names; give [name, tensor] pairs, or groups of tensors",
    );
    expect(() => adamw({ lr: 1, noDecay: 'bias' })(named())).toThrow(
      "adamw: noDecay.0 'bias': expected a pattern",
    );
    expect(() => muon({ lr: 1, adamw: { match: 'head' } })(named())).toThrow("muon: adamw.match.0 'head'");
  });

  test('out of range are refused in the pipeline file, each with its path', () => {
    const schema = z.strictObject({ optimizer: part('optimizer') });
    const read = (groups: unknown) => () =>
      decode(schema, { optimizer: adamw({ lr: 1, groups } as never) }, 'file');
    expect(read([{ match: 'a', lr: 0 }])).toThrow(/file: optimizer\.groups\.0\.lr: /);
    expect(read([{ match: 'a', lr: 1, lrRatio: 2 }])).toThrow(
      /optimizer\.groups\.0: expected lr or lrRatio, not both/,
    );
    expect(read([{ match: 'a', rate: 1 }])).toThrow(/optimizer\.groups\.0\.rate: expected a known key/);
    expect(read([{ match: '/(/' }])).toThrow(/optimizer\.groups\.0\.match: expected a regular expression/);
    // plain values that cross to another thread
    const decoded = decode(schema, { optimizer: adamw({ lr: 1, groups: [{ match: /lora_B/i }] }) }, 'file');
    expect(JSON.parse(JSON.stringify(decoded.optimizer))).toMatchObject({ groups: [{ match: '/lora_B/i' }] });
  });
});

test('muon leaves vectors and embeddings to AdamW', () => {
  const parameters = named();
  const optimizer = muon({ lr: 0.1 })(parameters);
  for (const [, p] of parameters) p.grad = tensor(new Float32Array(p.numel).fill(1), p.shape);
  optimizer.step();
  const parts = Array.from(optimizer.namedState(), ([name]) => name);
  expect(parts.filter((name) => name.endsWith('.momentum'))).toEqual(
    NAMES.slice(0, 2).map((name) => `${name}.momentum`),
  );
  expect(parts.filter((name) => name.endsWith('.exp_avg'))).toEqual(
    NAMES.slice(2).map((name) => `${name}.exp_avg`),
  );
});
