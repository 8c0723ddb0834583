/** The report's style sheet; light and dark follow the reader's system. */
export const STYLE = `
:root { --ink: #1c2430; --soft: #5b6675; --line: #dfe4ea; --paper: #fff; --card: #f6f8fa; --good: #1a7f4b; --bad: #c0392b; --warn: #b7791f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #98a3b3; --line: #2c3540; --paper: #12171d; --card: #1a212a; --good: #4cc38a; --bad: #ff7b6b; --warn: #e3b341; }
}
body { margin: 0 auto; max-width: 1180px; padding: 24px; color: var(--ink); background: var(--paper); font: 15px/1.45 system-ui, sans-serif; }
h1 { margin: 0; font-size: 28px; } h2 { margin: 32px 0 12px; font-size: 18px; }
header p { margin: 4px 0 20px; color: var(--soft); }
.failure { white-space: pre-wrap; font-size: 14px; color: var(--bad); }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; }
.tile { flex: 1 1 150px; padding: 12px 16px; border-radius: 8px; background: var(--card); }
.tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.words { max-width: 74ch; } .words p { margin: 0 0 8px; }
.warnings ul { margin: 0; padding: 0; list-style: none; }
.warnings h2 { margin-top: 0; }
.warnings li { margin: 0 0 10px; padding: 10px 14px; border-radius: 8px; background: var(--card); border-left: 4px solid var(--warn); overflow-wrap: anywhere; }
.warnings p { margin: 4px 0 0; } .warnings small, .remedy { color: var(--soft); }
.warnings details { margin-top: 6px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 20px; margin-top: 24px; }
.chart h3 { margin: 0 0 4px; font-size: 15px; } .chart h3 small { color: var(--soft); font-weight: normal; }
.u-legend { color: var(--soft); font-size: 12px; text-align: left; }
.u-legend th, .u-legend td { border: 0; padding: 0 4px 0 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); text-align: left; font-size: 14px; }
th { color: var(--soft); font-weight: 600; }
.answers { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 14px; }
figure { margin: 0; padding: 10px; border-radius: 8px; background: var(--card); border-left: 4px solid var(--good); }
figure.wrong { border-left-color: var(--bad); }
figure img { width: 100%; image-rendering: pixelated; border-radius: 4px; }
figcaption { font-size: 13px; color: var(--soft); } figcaption b { display: block; font-size: 15px; color: var(--good); }
.wrong figcaption b { color: var(--bad); } .expected { font-size: 12px; }
details { margin-top: 28px; color: var(--soft); } pre { overflow-x: auto; font-size: 12px; }
`;
