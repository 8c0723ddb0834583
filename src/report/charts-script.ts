/** Draws the charts in the reader's browser, from the JSON beside it, with the uPlot that the page holds. */
export const CHARTS_SCRIPT = `
(() => {
  const colors = ['#3b82f6', '#f59e0b', '#10b981', '#ef4444', '#8b5cf6', '#14b8a6', '#ec4899', '#84cc16', '#0ea5e9', '#a16207', '#64748b', '#d946ef'];
  const css = getComputedStyle(document.documentElement);
  const soft = css.getPropertyValue('--soft').trim(), line = css.getPropertyValue('--line').trim();
  const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const show = (value) => value == null ? '' : Math.abs(value) >= 1000 || (value !== 0 && Math.abs(value) < 0.001)
    ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  const plots = [];
  const width = (box) => Math.max(280, box.clientWidth);
  for (const chart of JSON.parse(document.getElementById('data').textContent)) {
    const box = document.createElement('div');
    box.className = 'chart';
    const title = document.createElement('h3'), unit = document.createElement('small');
    title.textContent = chart.title + ' ';
    unit.textContent = chart.unit;
    title.append(unit);
    box.append(title);
    document.getElementById(chart.place ?? 'charts').append(box);
    const many = chart.labels.length > 1;
    const smooth = chart.labels[1] === 'smoothed';
    plots.push([box, new uPlot({
      width: width(box), height: 220, legend: { show: many },
      cursor: { y: false },
      scales: { x: { time: false }, y: chart.log ? { distr: 3 } : chart.share ? { range: (u, lo, hi) => [0, Math.max(hi, 0.05)] } : {} },
      axes: [axis, { ...axis, size: 64, values: (u, values) => values.map(show) }],
      series: [{ label: 'step' }, ...chart.labels.map((label, i) => ({
        label, stroke: colors[i % colors.length] + (smooth && i === 0 ? '55' : ''), width: smooth && i === 0 ? 1 : 2,
        value: (u, value) => show(value), points: { show: chart.data[0].length < 30 }, spanGaps: true,
      }))],
    }, chart.data, box)]);
  }
  addEventListener('resize', () => { for (const [box, plot] of plots) plot.setSize({ width: width(box), height: 220 }); });
})();
`;
