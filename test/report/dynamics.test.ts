// What the report shows of how training went.

import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { CHARTS_SCRIPT } from '../../src/report/charts-script.js';
import { dynamicsCharts, firstStepsCharts } from '../../src/report/dynamics-charts.js';
import { explainFirstSteps } from '../../src/report/first-steps.js';
import { renderReport, type ReportData } from '../../src/report/page.js';
import type { StepEvent } from '../../src/train/events.js';
import { sampleData } from './sample-data.js';

/** A run whose adapters carry the first gradients. */
function steps(count: number, change: (step: number) => Partial<StepEvent> = () => ({})): StepEvent[] {
  return sampleData(count).steps.map((step, i) => {
    const gradNorms = { adapters: 30 / (1 + i), norms: 0.5, vision: 0 };
    return {
      ...step,
      gradNorms,
      gradNorm: Math.hypot(...Object.values(gradNorms)),
      clipped: i < 20,
      clippedShare: Math.min(1, 20 / (i + 1)),
      ...(i % 10 === 0 && { updateRatios: { adapters: 1e-3, norms: 0 } }),
      memory: { used: 2e9, most: 3e9 },
      tokensPerSecond: 1000,
      flops: 3e12,
      mfu: 0.4,
      ...change(i + 1),
    };
  });
}

const titles = (charts: readonly { title: string }[]) => charts.map(({ title }) => title);

describe('charts of the dynamics', () => {
  it('show gradients and updates by part, clipping, use of the machine, speed and memory', () => {
    const charts = dynamicsCharts(steps(150));
    expect(titles(charts)).toEqual([
      'Gradient norm by part',
      'Update over weights',
      'Clipped steps',
      'MFU',
      'Speed',
      'Memory',
    ]);
    const [norms, updates, clipped, , , memory] = charts;
    expect(norms).toMatchObject({ log: true, labels: ['norms', 'vision tower', 'adapters'] });
    expect(norms!.data[3]!.slice(0, 2)).toEqual([30, 15]);
    expect(norms!.data[2]!.every((value) => value === null)).toBe(true); // no logarithm of zero
    expect(updates!.data[0]).toHaveLength(15); // measured steps alone
    expect(clipped).toMatchObject({ share: true });
    expect(memory!.data.map(([first]) => first)).toEqual([1, 2, 3]);
  });

  it('count clipped steps of records without their share', () => {
    const clipped = dynamicsCharts(sampleData(3).steps.map((step, i) => ({ ...step, clipped: i === 1 })));
    expect(titles(clipped)).toEqual(['Clipped steps']);
    expect(clipped[0]!.data[1]).toEqual([0, 1 / 2, 1 / 3]);
  });

  it('show the first hundred steps closely, and who carries their gradients', () => {
    const charts = firstStepsCharts(steps(150));
    expect(titles(charts)).toEqual(['Loss', 'Gradient norm by part', 'Who carries it']);
    for (const { data, place } of charts) {
      expect(place).toBe('first');
      expect(data[0]).toHaveLength(100);
      expect(data[0]!.at(-1)).toBe(100);
    }
    const shares = charts[2]!.data.slice(1).map(([first]) => first!);
    expect(shares.reduce((a, b) => a + b)).toBeCloseTo(1, 12);
    expect(firstStepsCharts(sampleData(150).steps)).toEqual([]);
  });

  it('are drawn each in its place', () => {
    const drawn: { into: string; options: { series: unknown[] }; data: unknown[][] }[] = [];
    const element = (id: string) => ({
      id,
      clientWidth: 400,
      parent: '',
      append(child: { parent?: string }) {
        if (typeof child === 'object') child.parent = id;
      },
    });
    const charts = [...dynamicsCharts(steps(150)), ...firstStepsCharts(steps(150))];
    const places: Record<string, object> = { charts: element('charts'), first: element('first') };
    runInNewContext(CHARTS_SCRIPT, {
      document: {
        documentElement: {},
        createElement: () => element('box'),
        getElementById: (id: string) =>
          id === 'data' ? { textContent: JSON.stringify(charts) } : places[id],
      },
      getComputedStyle: () => ({ getPropertyValue: () => ' #000' }),
      addEventListener: () => undefined,
      uPlot: class {
        constructor(options: { series: unknown[] }, data: unknown[][], box: { parent: string }) {
          drawn.push({ into: box.parent, options, data });
        }
      },
    });
    expect(drawn.map(({ into }) => into)).toEqual([
      ...Array<string>(6).fill('charts'),
      ...Array<string>(3).fill('first'),
    ]);
    for (const { options, data } of drawn) expect(options.series).toHaveLength(data.length);
  });
});

describe('the first steps in words', () => {
  it('name the part that carries a large gradient, its share of the square, why, and what became of it', () => {
    const [largest, why, later, clipped] = explainFirstSteps(steps(300));
    expect(largest).toBe(
      'The largest gradient of the first 10 steps, at step 1, has a norm of 30: 57.5 times the median of steps 101 to ' +
        '300, 0.522. Of its square adapters carry 100% (norm 30); the other 2 parts have less than 5% each.',
    );
    expect(why).toMatch(/^Why adapters: the update starts at zero/);
    expect(later).toBe('Later its norm is 0.15, from 30 at step 1.');
    expect(clipped).toMatch(/^20 of the first 100 steps were clipped/);
  });

  it('name several parts where several carry it', () => {
    const shared = steps(300, (step) => ({
      gradNorms: step === 2 ? { embeddings: 40, mlp: 30 } : { embeddings: 0.4, mlp: 0.3 },
      gradNorm: step === 2 ? 50 : 0.5,
      clipped: false,
    }));
    const [largest, ...rest] = explainFirstSteps(shared);
    expect(largest).toMatch(
      /at step 2, .*100 times .*embeddings carry 64% \(norm 40\), beside MLP 36% \(norm 30\)\.$/,
    );
    expect(rest.at(-1)).toBe('None of the first 100 steps was clipped.');
  });

  it('do not call a gradient large that is not', () => {
    const even = steps(60, () => ({ gradNorms: { mlp: 1 }, gradNorm: 1, clipped: true }));
    const paragraphs = explainFirstSteps(even);
    expect(paragraphs).toHaveLength(2);
    expect(paragraphs[0]).toMatch(
      /norm of 1, which is not large beside the median of steps 31 to 60, 1\. Of/,
    );
    expect(paragraphs[1]).toMatch(/^All of the first 60 steps were clipped/);
  });

  it('say of a short run that it cannot be held against later steps, and nothing without norms by part', () => {
    expect(explainFirstSteps(steps(3))[0]).toMatch(/too short to hold it against later ones/);
    expect(explainFirstSteps(sampleData(300).steps)).toEqual([]);
    expect(explainFirstSteps([])).toEqual([]);
    expect(explainFirstSteps(steps(1, () => ({ gradNorms: { mlp: 0 }, gradNorm: 0 })))[0]).toMatch(
      /it is zero/,
    );
  });

  it('leave out what a continued run no longer has: its first steps', () => {
    expect(explainFirstSteps(steps(300).slice(150))).toEqual([]);
  });
});

describe('the page', () => {
  const page = (changes: Partial<ReportData>) =>
    renderReport({ ...sampleData(3), steps: steps(150), ...changes });

  it('lists warnings with their remedy and all names', () => {
    const names = Array.from({ length: 250 }, (_, i) => `model.layers.${i}.<x>`);
    const html = page({
      warnings: [
        { event: 'warning', kind: 'clipping', step: 100, message: 'each <b>', remedy: 'raise & see' },
        { event: 'warning', kind: 'zero weights', step: 0, message: 'zero', remedy: 'look', names },
      ],
    });
    expect(html).toContain('<h2>2 warnings</h2>');
    expect(html).toContain('<b>clipping</b> <small>seen at step 100</small><p>each &#60;b&#62;.</p>');
    expect(html).toContain('What to do: raise &#38; see.');
    expect(html).toContain('<small>before the first step</small>');
    expect(html).toContain('<summary>250 names</summary>');
    expect(html).toContain('model.layers.199.&#60;x&#62;\n... and 50 more');
    expect(page({})).not.toContain('class="warnings"');
  });

  it('tells the model’s facts', () => {
    const model = {
      event: 'model',
      numParameters: 5_439_438_272,
      numTrainable: 21_000_000,
      softcap: 30,
      peakFlops: 3.61e11,
    } as const;
    const html = page({ model });
    for (const [name, value] of [
      ['parameters', '5,439,438,272'],
      ['that learn', '21,000,000 (0.39%)'],
      ['soft cap of the logits', '30'],
      ['operations a step, on average', '3.00 TFLOP'],
      ['the machine&#39;s peak, as measured', '361 GFLOP/s'],
    ])
      expect(html).toContain(`<tr><td>${name}</td><td>${value}</td></tr>`);
    expect(page({ model: { event: 'model', numParameters: 1, numTrainable: 1 } })).toContain(
      '<td>soft cap of the logits</td><td>none</td>',
    );
  });

  it('has a place for the first steps’ charts where there are some', () => {
    const html = page({});
    expect(html).toContain('<h2>The first 100 steps</h2>');
    expect(html).toContain('id="first"');
    expect(html).toContain('<b>40.0%</b><span>MFU: of the machine&#39;s peak</span>');
    const bare = renderReport(sampleData(3));
    expect(bare).not.toContain('id="first"');
    expect(bare).not.toContain('"place":"first"');
  });
});
