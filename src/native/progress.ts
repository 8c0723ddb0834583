// What a set-up tells its user: lines, and one moving line of progress. Always on stderr, so that stdout stays data.

/** Receives what a set-up does. */
export interface SetupLog {
  line(text: string): void;
  /** @param done, total in `unit`; total is undefined while unknown */
  progress(label: string, done: number, total: number | undefined, unit: 'bytes' | 'files'): void;
}

export const silentLog: SetupLog = { line: () => {}, progress: () => {} };

/** A log on a stream: a moving line on a terminal, elsewhere a line whenever another tenth is done. */
export function streamLog(out: NodeJS.WriteStream | NodeJS.WritableStream = process.stderr): SetupLog {
  const terminal = 'isTTY' in out && out.isTTY;
  let last = '';
  return {
    line(text) {
      out.write(`${last && terminal ? '\n' : ''}${text}\n`);
      last = '';
    },
    progress(label, done, total, unit) {
      const text = `  ${label}: ${amountOf(done, total, unit)}`;
      if (terminal) {
        out.write(`\r\x1b[K${text}`);
        if (total && done >= total) out.write('\n');
        last = total && done >= total ? '' : text;
        return;
      }
      const tenth = `${label} ${total ? Math.floor((done / total) * 10) : Math.floor(done / 50e6)}`;
      if (tenth !== last) out.write(`${text}\n`);
      last = tenth;
    },
  };
}

function amountOf(done: number, total: number | undefined, unit: 'bytes' | 'files'): string {
  if (unit === 'files') return total ? `${done} of ${total} files` : `${done} files`;
  return total ? `${size(done)} of ${size(total)}` : size(done);
}

function size(bytes: number): string {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(0)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}
