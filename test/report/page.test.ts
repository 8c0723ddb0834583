import { describe, expect, it } from 'vitest';
import { renderReport, type ReportData } from '../../src/report/page.js';
import type { StepEvent } from '../../src/train/events.js';

export function sampleData(numSteps = 200): ReportData {
  const steps = Array.from({ length: numSteps }, (_, i): StepEvent => ({
    event: 'step',
    step: i + 1,
    loss: 4 * Math.exp(-i / 60) + 0.1 * Math.abs(Math.sin(i)),
    numLabels: 640,
    gradNorm: 10 / (1 + i / 10),
    lr: 1e-3 * Math.min(1, i / 30),
    tokens: 5000,
    samples: 32,
    images: 32,
    stepMs: 400 + (i % 7) * 5,
    waitMs: i % 9,
    waits: { encode: 1 },
  }));
  return {
    name: 'sft',
    steps,
    evals: [50, 100, 150, 200].map((step) => ({
      event: 'eval',
      step,
      name: 'eval',
      count: 1000,
      scores: { exactMatch: 0.6 + step / 600, 'exactMatch:shape': 0.3 + step / 400, promptAlone: 0.67 },
    })),
    answers: {
      event: 'answers',
      step: 200,
      name: 'eval',
      answers: [
        { prompt: 'what colour?', reference: 'red', answer: 'red', picture: 'data:image/png;base64,AAAA' },
        { prompt: '<script>alert(1)</script>', reference: 'a"b', answer: '' },
      ],
    },
    quarantined: [
      {
        event: 'quarantine',
        row: 'a.parquet row group 0 row 3',
        stage: 'decodeMedia',
        error: 'truncated <b>',
      },
    ],
    numQuarantined: 7,
    end: {
      event: 'end',
      ledger: { issued: 107, trained: 100, dropped: 0, quarantined: 7 },
      peakBytes: 12e6,
      steps: 200,
      waitMs: 800,
      seconds: 90,
    },
    config: { note: '</pre></script>' },
  };
}

describe('the report', () => {
  const html = renderReport(sampleData());

  it('is one file that loads nothing from elsewhere', () => {
    const withoutData = html.replace(/data:image[^"]*/g, '');
    expect(withoutData).not.toMatch(/<(script|link|img)[^>]+(src|href)="?https?:/);
    expect(withoutData).not.toMatch(/@import|url\(/);
    expect(html).toContain('uPlot');
  });

  it('shows scores, the account of samples, answers and quarantined rows', () => {
    expect(html).toContain('107 samples issued = 100 trained + 0 dropped + 7 quarantined');
    expect(html).toContain('<b>0.933</b><span>exactMatch, 1000 held-out samples</span>');
    expect(html).toContain('7 quarantined rows');
    expect(html).toContain('a.parquet row group 0 row 3');
    expect(html).toContain('expected a&#34;b');
  });

  it('keeps text from data text', () => {
    expect(html).not.toContain('<script>alert(1)');
    expect(html).not.toContain('truncated <b>');
    expect(html).not.toContain('</pre></script>');
  });

  it('embeds data for a chart of each curve', () => {
    const json = /<script type="application\/json" id="data">(.*?)<\/script>/s.exec(html)![1]!;
    const charts = JSON.parse(json) as { title: string; data: number[][] }[];
    expect(charts.map(({ title }) => title)).toEqual([
      'Loss',
      'Evaluation',
      'Gradient norm',
      'Learning rate',
      'Wait share',
      'Step time',
    ]);
    expect(charts[0]!.data[0]).toHaveLength(200);
    expect(charts[1]!.data.map((series) => series.length)).toEqual([4, 4, 4, 4]);
  });

  it('says when a run did not reach its end', () => {
    expect(renderReport({ ...sampleData(3), end: undefined, evals: [], answers: undefined })).toContain(
      'stopped after step 3, before its end',
    );
  });
});
