// A server of files that answers ranges as real ones do, counts what it sends, and can be told to misbehave.

import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';

export interface Served {
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  readonly ifRange: string | undefined;
}

/** Answers a call instead of the usual; returns true when it did. */
export type Fault = (call: Served, response: ServerResponse) => boolean;

export class RangeServer {
  /** By path, without query. */
  readonly files = new Map<string, Buffer>();
  readonly calls: Served[] = [];
  /** Each is asked until it has answered once. */
  readonly faults: Fault[] = [];
  /** Bytes of bodies. */
  sent = 0;
  ranges = true;
  etags = true;
  url = '';

  static async start(host = '127.0.0.1'): Promise<RangeServer> {
    const made = new RangeServer();
    const server = createServer((message, response) => made.#answer(message, response));
    await new Promise<void>((done) => server.listen(0, host, done));
    made.url = `http://${host}:${(server.address() as AddressInfo).port}`;
    onTestFinished(async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    });
    return made;
  }

  /** Forgets what was counted. */
  reset(): void {
    this.calls.length = 0;
    this.sent = 0;
  }

  #answer({ url = '', headers }: IncomingMessage, response: ServerResponse): void {
    const call = {
      path: url,
      range: headers.range,
      authorization: headers.authorization,
      ifRange: headers['if-range'] as string | undefined,
    };
    this.calls.push(call);
    const fault = this.faults.findIndex((answer) => answer(call, response));
    if (fault >= 0) return void this.faults.splice(fault, 1);
    const bytes = this.files.get(decodeURIComponent(url.replace(/\?.*/, '')));
    if (!bytes) return void response.writeHead(404).end('no such file');
    const etag = etagOf(bytes);
    if (this.etags) response.setHeader('etag', etag);
    const found = /^bytes=(\d+)-(\d+)$/.exec(call.range ?? '');
    if (!this.ranges || !found || (call.ifRange !== undefined && call.ifRange !== etag)) {
      this.sent += bytes.length;
      return void response.writeHead(200, { 'content-length': bytes.length }).end(bytes);
    }
    const start = Number(found[1]);
    const end = Math.min(Number(found[2]), bytes.length - 1);
    if (start >= bytes.length) {
      return void response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end();
    }
    this.sent += end + 1 - start;
    response.writeHead(206, {
      'content-length': end + 1 - start,
      'content-range': `bytes ${start}-${end}/${bytes.length}`,
    });
    response.end(bytes.subarray(start, end + 1));
  }
}

export function etagOf(bytes: Buffer): string {
  return `"${createHash('sha256').update(bytes).digest('hex').slice(0, 16)}"`;
}
