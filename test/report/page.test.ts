import { describe, expect, it } from 'vitest';
import { renderReport, type ReportData } from '../../src/report/page.js';
import { sampleData } from './sample-data.js';

function chartsIn(html: string): { title: string; labels: string[]; data: (number | null)[][] }[] {
  const json = /<script type="application\/json" id="data">(.*?)<\/script>/s.exec(html)![1]!;
  return JSON.parse(json) as ReturnType<typeof chartsIn>;
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

  it('shows what was used in part, where anything was', () => {
    expect(html).not.toContain('used in part');
    const notice = {
      event: 'notice',
      row: 'b.parquet row group 0 row 1',
      stage: 'encode',
      message: 'cut <b>',
    } as const;
    const page = renderReport({ ...sampleData(3), notices: [notice, { ...notice, count: 40 }] });
    expect(page).toContain('<h2>41 rows used in part</h2>');
    expect(page).toContain('<td>b.parquet row group 0 row 1</td><td>encode</td><td>cut &#60;b&#62;</td>');
  });

  it('keeps text from data text', () => {
    expect(html).not.toContain('<script>alert(1)');
    expect(html).not.toContain('truncated <b>');
    expect(html).not.toContain('</pre></script>');
  });

  it('embeds data for a chart of each curve', () => {
    const charts = chartsIn(html);
    expect(charts.map(({ title }) => title)).toEqual([
      'Loss',
      'Evaluation',
      'Gradient norm',
      'Clipped steps',
      'Learning rate',
      'Wait share',
      'Step time',
    ]);
    expect(charts[0]!.data[0]).toHaveLength(200);
    expect(charts[1]!.data.map((series) => series.length)).toEqual([4, 4, 4, 4]);
  });

  it('says when a run did not reach its end', () => {
    const { end, ...data } = sampleData(3);
    const page = (changes: Partial<ReportData>) => renderReport({ ...data, end, ...changes });
    expect(page({ end: undefined, evals: [], answers: new Map() })).toContain(
      'ended after step 3, before all was accounted for',
    );
    expect(page({ end: { ...end!, outcome: 'stopped' } })).toContain(
      'stopped by a signal after 200 steps in 90 s',
    );
    const failed = page({ end: { ...end!, outcome: 'failed', error: 'a <b>' } });
    expect(failed).toContain('failed after 200 steps in 90 s');
    expect(failed).toContain('<pre class="failure">a &#60;b&#62;</pre>');
  });

  it('keeps several evaluations apart', () => {
    const data = sampleData(3);
    const evals = [1, 3].flatMap((step) => [
      { event: 'eval' as const, step, name: 'seen', count: 5, scores: { exactMatch: 0.5 } },
      { event: 'eval' as const, step, name: 'unseen', count: 5, scores: { exactMatch: 0.25 } },
    ]);
    const [answers] = data.answers.values();
    const page = renderReport({
      ...data,
      evals,
      answers: new Map(['seen', 'unseen'].map((name) => [name, { ...answers!, name }])),
    });
    expect(page).toContain('<b>0.500</b><span>seen: exactMatch, 5 held-out samples</span>');
    expect(page).toContain('<b>0.250</b><span>unseen: exactMatch, 5 held-out samples</span>');
    expect(page).toContain('Answers of unseen at step 200');
    const chart = chartsIn(page).find(({ title }) => title === 'Evaluation')!;
    expect(chart).toMatchObject({
      labels: ['seen: exactMatch', 'unseen: exactMatch'],
      data: [
        [1, 3],
        [0.5, 0.5],
        [0.25, 0.25],
      ],
    });
  });
});
