// Files on servers: what is asked for, what is believed, and what is done when it goes wrong.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { parquetWriteFile } from 'hyparquet-writer';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { arrow } from '../../src/data/arrow.js';
import { jsonl } from '../../src/data/jsonl.js';
import { parquet } from '../../src/data/parquet.js';
import { RemoteFile } from '../../src/data/remote-file.js';
import { hashValue } from '../../src/data/rows-of-hash.js';
import { remoteUrl } from '../../src/data/remote-url.js';
import { hubSettings } from '../../src/hub/settings.js';
import { messageFrom, readAll, readValues, temporaryFolder } from './helpers.js';
import { RangeServer, etagOf } from './range-server.js';

const NUM_ROWS = 60;
const BLOB_BYTES = 10_000;
let server: RangeServer;
let local: string;
let bytes: Buffer;

/** Six row groups of ten rows: id, a blob of 10 kB a row that no two rows share, and a word. */
function write(file: string, first = 0): void {
  const ids = Array.from({ length: NUM_ROWS }, (_, i) => first + i);
  let state = 1 + first;
  const noise = (): number => (state = (state * 48271) % 2147483647) & 255;
  parquetWriteFile({
    filename: file,
    rowGroupSize: 10,
    columnData: [
      { name: 'id', data: ids, type: 'INT32' },
      {
        name: 'blob',
        data: ids.map(() => Uint8Array.from({ length: BLOB_BYTES }, noise)),
        type: 'BYTE_ARRAY',
      },
      { name: 'word', data: ids.map((id) => `word ${id}`), type: 'STRING' },
    ],
  });
}

beforeEach(async () => {
  server = await RangeServer.start();
  local = join(temporaryFolder(), 'rows.parquet');
  write(local);
  bytes = readFileSync(local);
  server.files.set('/data/rows.parquet', bytes);
});
afterEach(() => vi.unstubAllEnvs());

const address = (): string => `${server.url}/data/rows.parquet`;

describe('reading', () => {
  test('a file on a server gives the rows of its copy on the disk, in order and shuffled', async () => {
    for (const options of [{}, { shuffle: { seed: 3, windowBytes: 250_000 } }]) {
      const read = await readValues(parquet(address(), options));
      expect(hashOf(read)).toBe(hashOf(await readValues(parquet(local, options))));
    }
  });

  test('one column is read without the bytes of the others', async () => {
    const source = parquet<{ id: number }>(address(), { columns: ['id'] });
    expect((await readValues(source)).map(({ id }) => id)).toEqual([...Array(NUM_ROWS).keys()]);
    expect(server.sent).toBeLessThan(bytes.length / 20);
    // Beginning, end, perhaps the rest of the footer; then a request a row group.
    expect(server.calls.length).toBeLessThanOrEqual(3 + NUM_ROWS / 10);
  });

  test('columns that lie side by side come in one request a row group', async () => {
    await readValues(parquet(address()));
    expect(server.calls.length).toBeLessThanOrEqual(3 + NUM_ROWS / 10);
    expect(server.sent).toBeLessThan(1.05 * bytes.length);
  });

  test('a plan reads the footer alone, and opening after it asks for the rows alone', async () => {
    const source = parquet(address());
    expect(await source.plan()).toMatchObject({ numRows: NUM_ROWS, numRowGroups: 6, files: [address()] });
    expect(server.sent).toBeLessThan(10_000);
    server.reset();
    for await (const _ of source.open(new AbortController().signal)) break;
    expect(server.calls.every(({ range }) => !range!.startsWith('bytes=0-'))).toBe(true);
  });

  test('a list of addresses is read as one, and braces name several', async () => {
    const other = join(temporaryFolder(), 'more.parquet');
    write(other, 100);
    server.files.set('/data/more.parquet', readFileSync(other));
    const listed = await readValues(parquet<{ id: number }>([address(), `${server.url}/data/more.parquet`]));
    const braced = await readValues(parquet<{ id: number }>(`${server.url}/data/{rows,more}.parquet`));
    expect(listed.length).toBe(2 * NUM_ROWS);
    expect(hashOf(braced)).toBe(hashOf(listed));
  });

  test('Arrow files and JSON lines, compressed too, are read from servers', async () => {
    const lines = Array.from({ length: 500 }, (_, i) => JSON.stringify({ i, text: `line ${i}` })).join('\n');
    server.files.set('/lines.jsonl', Buffer.from(lines));
    server.files.set('/lines.jsonl.gz', gzipSync(lines));
    for (const name of ['lines.jsonl', 'lines.jsonl.gz']) {
      const read = await readValues(jsonl<{ i: number }>(`${server.url}/${name}`));
      expect(read.map(({ i }) => i)).toEqual([...Array(500).keys()]);
    }
    for (const name of ['values-lz4.arrow', 'values-zstd-stream.arrow']) {
      server.files.set(`/${name}`, readFileSync(`fixtures/arrow/${name}`));
      expect(await readValues(arrow(`${server.url}/${name}`))).toEqual(
        await readValues(arrow(`fixtures/arrow/${name}`)),
      );
    }
  });

  test('items name the file without the query of a signed address', async () => {
    const [first] = await readAll(parquet(`${address()}?signature=secret`));
    expect(first!.origin.file).toBe(address());
  });
});

describe('identity', () => {
  test('a signed address that changes does not change the fingerprint; another content does', async () => {
    const print = await parquet(`${address()}?signature=a`).fingerprint();
    expect(await parquet(`${address()}?signature=b`).fingerprint()).toBe(print);
    write(local, 7);
    server.files.set('/data/rows.parquet', readFileSync(local));
    expect(await parquet(`${address()}?signature=c`).fingerprint()).not.toBe(print);
  });

  test('a fingerprint reads the end of the file alone', async () => {
    await parquet(address()).fingerprint();
    expect(server.sent).toBeLessThan(10_000);
  });

  test.each([
    ['by its ETag', true],
    ['by its length, where there is no ETag', false],
  ])('a file that changes while it is read is an error that names it, told %s', async (_, etags) => {
    server.etags = etags;
    const reading = (async () => {
      let count = 0;
      for await (const _item of parquet(address(), { readAhead: false }).open(new AbortController().signal)) {
        if (++count === 5) {
          server.files.set('/data/rows.parquet', etags ? flipped(bytes) : Buffer.concat([bytes, bytes]));
        }
      }
    })();
    const message = await messageFrom(reading);
    expect(message).toContain(`${basename(local)}: expected the file that the run began with`);
    if (etags) expect(message).toContain(etagOf(flipped(bytes)));
  });

  test('a file that changes between plan and reading is an error; planned again it is read', async () => {
    const source = parquet(address());
    await source.plan();
    write(local, 500);
    server.files.set('/data/rows.parquet', readFileSync(local));
    expect(await messageFrom(readAll(source))).toContain('the file that the run began with');
    await source.plan();
    expect(hashOf(await readValues(source))).toBe(hashOf(await readValues(parquet(local))));
  });
});

describe('faults', () => {
  const quick = () => ({
    ...hubSettings({ HOME: temporaryFolder() }),
    retry: { attempts: 3, firstDelayMs: 1, stallMs: 300 },
  });
  const readWhole = async (): Promise<Buffer> => {
    const file = await RemoteFile.open(address(), { settings: quick(), afresh: true });
    return Buffer.from(await file.readExactly(0, file.stamp.size));
  };

  test('503 and 429 are asked again', async () => {
    server.faults.push(
      (_, response) => (response.writeHead(503).end(), true),
      (_, response) => (response.writeHead(429, { 'retry-after': '0' }).end(), true),
    );
    expect((await readWhole()).equals(bytes)).toBe(true);
  });

  test('what Retry-After says is waited for', async () => {
    server.faults.push((_, response) => (response.writeHead(503, { 'retry-after': '1' }).end(), true));
    const start = performance.now();
    await readWhole();
    expect(performance.now() - start).toBeGreaterThan(950);
  });

  test('after a cut connection only the rest is asked for', async () => {
    server.faults.push(({ range }, response) => {
      if (range !== `bytes=0-${bytes.length - 1}`) return false;
      response.writeHead(206, {
        'content-range': `bytes 0-${bytes.length - 1}/${bytes.length}`,
        etag: etagOf(bytes),
      });
      response.write(bytes.subarray(0, 200_000), () => setTimeout(() => response.destroy(), 50));
      return true;
    });
    expect((await readWhole()).equals(bytes)).toBe(true);
    expect(server.calls.at(-1)!.range).toMatch(/^bytes=[1-9]\d*-/);
  });

  test('a server that fails for good is named with its status', async () => {
    for (let i = 0; i < 3; i++) server.faults.push((_, response) => (response.writeHead(500).end(), true));
    expect(await messageFrom(readWhole())).toBe(
      `DataError: ${address()}: expected an answer of its server, received HTTP 500, 3 times; check the connection and the server; a run that has stopped goes on with --resume`,
    );
  });

  test('a server that never answers is named when its time is up', async () => {
    for (let i = 0; i < 3; i++) server.faults.push(() => true);
    expect(await messageFrom(readWhole())).toContain(
      `${address()}: expected an answer of its server, received no connection to ${new URL(address()).host} (nothing came for too long), 3 times`,
    );
  });

  test.each([404, 403, 410])(
    'HTTP %i is an error at once, without the secrets of the address',
    async (status) => {
      server.faults.push((_, response) => (response.writeHead(status).end(), true));
      const signed = address().replace('http://', 'http://user:secret@') + '?signature=secret';
      const message = await messageFrom(readAll(parquet(signed)));
      expect(message).toContain(`${address()}: expected a file to read, received HTTP ${status}`);
      expect(message).not.toContain('secret');
      expect(server.calls.length).toBe(1);
    },
  );

  test('a server without ranges is refused, and nothing of the file is taken', async () => {
    server.ranges = false;
    expect(await messageFrom(readAll(parquet(address())))).toContain(
      'expected a server that answers range requests (HTTP 206), received HTTP 200 with the whole file; download it first',
    );
  });

  test('an answer with other bytes than were asked for is not believed', async () => {
    server.faults.push(({ range }, response) => {
      if (range !== `bytes=0-${bytes.length - 1}`) return false;
      response.writeHead(206, { 'content-range': `bytes 5-9/${bytes.length}` }).end('other');
      return true;
    });
    expect(await messageFrom(readWhole())).toContain("expected the file's bytes from 0 on");
  });

  test('an empty file and one that is not Parquet are told', async () => {
    server.files.set('/empty.parquet', Buffer.alloc(0));
    expect(await messageFrom(readAll(parquet(`${server.url}/empty.parquet`)))).toContain('an empty file');
    server.files.set('/text.parquet', Buffer.from('no Parquet at all, this is text'));
    expect(await messageFrom(readAll(parquet(`${server.url}/text.parquet`)))).toContain('begin with "no P"');
  });

  test('an abort ends a request that is under way', async () => {
    await parquet(address()).plan();
    server.faults.push(() => true);
    const controller = new AbortController();
    const reading = readAll(parquet(address()), controller.signal);
    setTimeout(() => controller.abort(new Error('enough')), 50);
    expect(await messageFrom(reading)).toContain('enough');
  });
});

describe('addresses', () => {
  const hub = { ...hubSettings({ HOME: '/nowhere' }), endpoint: 'https://hub.test' };

  test.each([
    ['hf://datasets/owner/name/data/a b.parquet', 'datasets/owner/name/resolve/main/data/a%20b.parquet'],
    ['hf://datasets/owner/name@v1/x.parquet', 'datasets/owner/name/resolve/v1/x.parquet'],
    [
      'hf://datasets/owner/name@~parquet/x.parquet',
      'datasets/owner/name/resolve/refs%2Fconvert%2Fparquet/x.parquet',
    ],
    [
      'hf://datasets/owner/name@refs%2Fpr%2F1/x.parquet',
      'datasets/owner/name/resolve/refs%2Fpr%2F1/x.parquet',
    ],
    ['hf://owner/model/x.parquet', 'owner/model/resolve/main/x.parquet'],
  ])('%s is a file of the Hub', (path, expected) => {
    expect(remoteUrl(path, hub)).toEqual({ href: `https://hub.test/${expected}`, name: path });
  });

  test('of other kinds, patterns and half addresses are refused', async () => {
    expect(() => remoteUrl('s3://bucket/x.parquet', hub)).toThrow('received one of s3://');
    expect(() => remoteUrl('https://host/*.parquet', hub)).toThrow('a pattern, which a server cannot expand');
    expect(() => remoteUrl('hf://datasets/name', hub)).toThrow('lacks owner, name or path');
    expect(() => remoteUrl('hf://a/b/c', { ...hub, isOffline: true })).toThrow('HF_HUB_OFFLINE');
    expect(await messageFrom(readAll(parquet('s3://bucket/x.parquet')))).toContain('received one of s3://');
  });

  test('the token goes to the Hub, and a user to its own server, and neither further', async () => {
    const storage = await RangeServer.start('localhost');
    storage.files.set('/blob', bytes);
    const redirect = (to: RangeServer): void => {
      const answer: (typeof to.faults)[number] = (_, response) => {
        to.faults.push(answer);
        response.writeHead(302, { location: `${storage.url}/blob?signature=${Math.random()}` }).end();
        return true;
      };
      to.faults.push(answer);
    };
    redirect(server);
    vi.stubEnv('HF_ENDPOINT', server.url);
    vi.stubEnv('HF_TOKEN', 'hf_secret');
    const read = await readValues(parquet('hf://datasets/owner/name/rows.parquet', { columns: ['id'] }));
    expect(read.length).toBe(NUM_ROWS);
    expect(new Set(server.calls.map(({ authorization }) => authorization))).toEqual(
      new Set(['Bearer hf_secret']),
    );
    expect(new Set(storage.calls.map(({ authorization }) => authorization))).toEqual(new Set([undefined]));

    vi.stubEnv('HF_ENDPOINT', 'https://elsewhere.test');
    server.reset();
    storage.reset();
    await parquet(address().replace('http://', 'http://user:word@')).plan();
    expect(server.calls[0]!.authorization).toBe(`Basic ${Buffer.from('user:word').toString('base64')}`);
    expect(storage.calls.length).toBeGreaterThan(0);
    expect(storage.calls.every(({ authorization }) => authorization === undefined)).toBe(true);
  });
});

function flipped(file: Buffer): Buffer {
  const copy = Buffer.from(file);
  copy[copy.length >> 1]! ^= 1;
  return copy;
}

/** Of all cells: comparing them by `toEqual` takes seconds. */
function hashOf(values: readonly unknown[]): string {
  const hash = createHash('sha256');
  hashValue(hash, values);
  return hash.digest('hex');
}
