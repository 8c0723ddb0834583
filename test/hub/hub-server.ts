// A server that speaks the part of the Hub's API that downloads need, and can be told to misbehave.

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { HubSettings } from '../../src/hub/index.js';

export interface ServedFile {
  readonly bytes: Buffer;
  /** In large-file storage: sent from another host. */
  readonly isLarge: boolean;
}

export interface Call {
  readonly host: 'hub' | 'storage';
  readonly method: string;
  readonly path: string;
  readonly range: string | undefined;
  readonly token: string | undefined;
}

/** What a rule may do with a call, instead of the usual. Return true when it answered. */
export type Rule = (call: Call, response: ServerResponse, hub: HubServer) => boolean;

export const COMMIT = 'a'.repeat(39) + '1';
export const OTHER_COMMIT = 'b'.repeat(39) + '2';

export class HubServer {
  readonly calls: Call[] = [];
  /** Asked in turn, before anything else. */
  readonly rules: Rule[] = [];
  readonly revisions = new Map<string, string>([
    ['main', COMMIT],
    ['HEAD', COMMIT],
  ]);
  /** By commit, then path. */
  readonly commits = new Map<string, Map<string, ServedFile>>([[COMMIT, new Map()]]);
  /** Paths as the listing states them, where they differ. */
  readonly listedAs = new Map<string, Record<string, unknown>>();
  repository = 'someone/tiny';
  /** Entries a page of the listing. */
  pageSize = 1000;
  endpoint = '';
  storage = '';
  readonly #servers: Server[] = [];

  static async start(): Promise<HubServer> {
    const hub = new HubServer();
    hub.storage = await hub.#listen('storage');
    hub.endpoint = await hub.#listen('hub');
    onTestFinished(() => hub.close());
    return hub;
  }

  add(path: string, bytes: Buffer | string, { isLarge = false, commit = COMMIT } = {}): void {
    if (!this.commits.has(commit)) this.commits.set(commit, new Map());
    this.commits.get(commit)!.set(path, { bytes: Buffer.from(bytes), isLarge });
  }

  /** Settings of a client with a cache of its own, which does not wait long. */
  settings(change: Partial<HubSettings> = {}): HubSettings {
    return {
      endpoint: this.endpoint,
      cacheFolder: temporaryFolder(),
      isOffline: false,
      token: undefined,
      retry: { attempts: 4, firstDelayMs: 2, stallMs: 2000 },
      ...change,
    };
  }

  /** Calls for a file's bytes. */
  downloads(path: string): Call[] {
    return this.calls.filter(
      (call) => call.host === 'hub' && call.path.endsWith(`/resolve/${COMMIT}/${path}`),
    );
  }

  async close(): Promise<void> {
    for (const server of this.#servers) {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    }
    this.#servers.length = 0;
  }

  async #listen(host: Call['host']): Promise<string> {
    const server = createServer((message, response) => {
      const call = callOf(message, host);
      this.calls.push(call);
      if (this.rules.some((rule) => rule(call, response, this))) return;
      if (host === 'storage') return this.#store(call, response);
      this.#answer(call, response);
    });
    this.#servers.push(server);
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    // another name than the hub's, as the real ones have
    const name = host === 'hub' ? '127.0.0.1' : 'localhost';
    return `http://${name}:${(server.address() as AddressInfo).port}`;
  }

  #answer(call: Call, response: ServerResponse): void {
    const url = new URL(call.path, this.endpoint);
    const api = /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/([^/]+)/.exec(url.pathname);
    const file = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname);
    const repository = (api ?? file)?.[1];
    if (repository !== this.repository) return refuse(response, 404, 'RepoNotFound', 'Repository not found');
    const asked = decodeURIComponent((api ? api[3] : file![2])!);
    const commit = this.revisions.get(asked) ?? asked;
    const files = this.commits.get(commit);
    if (!files) return refuse(response, 404, 'RevisionNotFound', `Invalid rev id: ${asked}`);
    if (api?.[2] === 'revision') return json(response, { id: repository, sha: commit, private: false });
    if (api) return this.#tree(files, url, response);

    const found = files.get(decodeURIComponent(file![3]!));
    if (!found) return refuse(response, 404, 'EntryNotFound', 'Entry not found');
    response.setHeader('x-repo-commit', commit);
    if (!found.isLarge) {
      response.setHeader('etag', `"${gitHash(found.bytes)}"`);
      return sendBytes(found.bytes, call, response);
    }
    response.setHeader('x-linked-etag', `"${sha256(found.bytes)}"`);
    response.setHeader('x-linked-size', String(found.bytes.length));
    response.writeHead(302, { location: `${this.storage}/objects/${sha256(found.bytes)}?signature=x` }).end();
  }

  #tree(files: Map<string, ServedFile>, url: URL, response: ServerResponse): void {
    const entries = [...files].map(([path, { bytes, isLarge }]) => ({
      type: 'file',
      path,
      size: bytes.length,
      oid: isLarge ? createHash('sha1').update(`pointer ${path}`).digest('hex') : gitHash(bytes),
      ...(isLarge && { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 134 } }),
      ...this.listedAs.get(path),
    }));
    const from = Number(url.searchParams.get('cursor') ?? 0);
    if (from + this.pageSize < entries.length) {
      url.searchParams.set('cursor', String(from + this.pageSize));
      response.setHeader('link', `<${url.href}>; rel="next"`);
    }
    json(response, entries.slice(from, from + this.pageSize));
  }

  #store(call: Call, response: ServerResponse): void {
    const hash = call.path.split('/').at(-1)!.split('?')[0];
    for (const files of this.commits.values()) {
      for (const { bytes } of files.values())
        if (sha256(bytes) === hash) return sendBytes(bytes, call, response);
    }
    response.writeHead(404).end();
  }
}

/** A folder that is removed when the test ends. */
export function temporaryFolder(): string {
  const folder = fs.mkdtempSync(join(tmpdir(), 'sluice-hub-'));
  onTestFinished(() => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Bytes that no two names share. */
export function noise(numBytes: number, name: string): Buffer {
  const block = createHash('sha256').update(name).digest();
  return Buffer.alloc(numBytes, block);
}

/** Sends bytes, or the range of them that is asked for. */
export function sendBytes(bytes: Buffer, { range }: Pick<Call, 'range'>, response: ServerResponse): void {
  const start = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0);
  if (range !== undefined && start >= bytes.length) return void response.writeHead(416).end();
  const rest = bytes.subarray(start);
  response.writeHead(range === undefined ? 200 : 206, {
    'content-length': rest.length,
    ...(range !== undefined && { 'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` }),
  });
  response.end(rest);
}

/** Sends so many bytes of what is asked for, then breaks the connection. */
export function breakAfter(numBytes: number, bytes: Buffer, call: Call, response: ServerResponse): void {
  const start = Number(/^bytes=(\d+)-$/.exec(call.range ?? '')?.[1] ?? 0);
  response.writeHead(call.range === undefined ? 200 : 206, {
    'content-length': bytes.length - start,
    'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}`,
  });
  // an end, not a reset, which would take back what is under way
  response.write(bytes.subarray(start, start + numBytes), () => response.socket?.end());
}

export function refuse(response: ServerResponse, status: number, code: string, message: string): void {
  response.writeHead(status, { 'x-error-code': code, 'x-error-message': message }).end();
}

export function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

export function gitHash(bytes: Buffer): string {
  return createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

function callOf({ method = '', url = '', headers }: IncomingMessage, host: Call['host']): Call {
  return { host, method, path: url, range: headers.range, token: headers.authorization };
}
