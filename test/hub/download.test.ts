// Downloads from a local server: whole, interrupted, damaged, refused, at once.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { HubError } from '../../src/errors.js';
import { type HubSettings, type ResolveOptions, resolveModel } from '../../src/hub/index.js';
import {
  breakAfter,
  COMMIT,
  gitHash,
  HubServer,
  noise,
  type Rule,
  OTHER_COMMIT,
  refuse,
  sendBytes,
  sha256,
} from './hub-server.js';

const weights = noise(300_000, 'weights');
const config = '{"model_type": "gemma3n_text"}';

async function hubWithModel(): Promise<HubServer> {
  const hub = await HubServer.start();
  hub.add('config.json', config);
  hub.add('tokenizer.json', noise(5000, 'tokenizer'), { isLarge: true });
  hub.add('model.safetensors', weights, { isLarge: true });
  hub.add('README.md', '# A model');
  hub.add('pytorch_model.bin', noise(1000, 'pickle'), { isLarge: true });
  hub.add('onnx/model.onnx', noise(1000, 'onnx'), { isLarge: true });
  return hub;
}

async function folderOf(settings: HubSettings, options: ResolveOptions = {}): Promise<string> {
  return (await resolveModel('someone/tiny', options, settings)).folder;
}

async function failure(settings: HubSettings, options: ResolveOptions = {}): Promise<HubError> {
  const error: unknown = await folderOf(settings, options).catch((error: unknown) => error);
  expect(error).toBeInstanceOf(HubError);
  return error as HubError;
}

/** Some of the weights, then nothing. */
function hangAfter(numBytes: number): Rule {
  return (call, response) => {
    if (call.host !== 'storage' || !call.path.includes(sha256(weights))) return false;
    response.writeHead(200, { 'content-length': weights.length });
    response.write(weights.subarray(0, numBytes));
    return true;
  };
}

function stopAtWeights(controller: AbortController): ResolveOptions['onProgress'] {
  return ({ file, doneBytes }) => {
    if (file === 'model.safetensors' && doneBytes > 10_000) controller.abort(new Error('enough'));
  };
}

const read = (folder: string, name: string): Buffer => fs.readFileSync(join(folder, name));

describe('a download', () => {
  test('brings what a model needs and nothing else, into the layout of the cache', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    const folder = await folderOf(settings);
    const repository = join(settings.cacheFolder, 'models--someone--tiny');
    expect(folder).toBe(join(repository, 'snapshots', COMMIT));
    expect(fs.readdirSync(folder).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
    expect(read(folder, 'model.safetensors').equals(weights)).toBe(true);
    expect(fs.readlinkSync(join(folder, 'model.safetensors'))).toBe(`../../blobs/${sha256(weights)}`);
    expect(fs.readlinkSync(join(folder, 'config.json'))).toBe(`../../blobs/${gitHash(Buffer.from(config))}`);
    expect(fs.readFileSync(join(repository, 'refs/main'), 'utf8')).toBe(COMMIT);
    expect(fs.readdirSync(join(repository, 'blobs')).some((name) => name.includes('incomplete'))).toBe(false);
    expect(fs.readdirSync(join(settings.cacheFolder, '.locks/models--someone--tiny'))).toEqual([]);
  });

  test('is not repeated: the next call asks for the commit alone, and for a commit nothing', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    const folder = await folderOf(settings);
    hub.calls.length = 0;
    expect(await folderOf(settings)).toBe(folder);
    expect(hub.calls.map(({ path }) => path.split('?')[0])).toEqual([
      '/api/models/someone/tiny/revision/main',
    ]);
    hub.calls.length = 0;
    expect(await folderOf(settings, { revision: COMMIT })).toBe(folder);
    expect(hub.calls).toEqual([]);
  });

  test('takes a revision, and keeps two commits apart that share blobs', async () => {
    const hub = await hubWithModel();
    hub.revisions.set('v2', OTHER_COMMIT);
    hub.add('config.json', '{"other": 1}', { commit: OTHER_COMMIT });
    hub.add('model.safetensors', weights, { isLarge: true, commit: OTHER_COMMIT });
    const settings = hub.settings();
    await folderOf(settings);
    const { folder, origin } = await resolveModel('someone/tiny', { revision: 'v2' }, settings);
    expect(origin).toEqual({ repository: 'someone/tiny', revision: 'v2', commit: OTHER_COMMIT });
    expect(read(folder, 'config.json').toString()).toBe('{"other": 1}');
    expect(hub.calls.filter(({ host }) => host === 'storage')).toHaveLength(2);
  });

  test('follows a listing over its pages', async () => {
    const hub = await hubWithModel();
    hub.pageSize = 2;
    expect(fs.readdirSync(await folderOf(hub.settings()))).toHaveLength(3);
  });

  test('brings the shards that the index names', async () => {
    const hub = await HubServer.start();
    hub.add('config.json', config);
    const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
    for (const name of shards) hub.add(name, noise(20_000, name), { isLarge: true });
    hub.add('model-00001-of-00003.safetensors', noise(10, 'stale'), { isLarge: true });
    const weight_map = { a: shards[0], b: shards[1], c: shards[0] };
    hub.add('model.safetensors.index.json', JSON.stringify({ weight_map }));
    const settings = hub.settings();
    expect(fs.readdirSync(await folderOf(settings)).sort()).toEqual([
      'config.json',
      ...shards,
      'model.safetensors.index.json',
    ]);
    expect(await folderOf(settings, { offline: true })).toContain(COMMIT);
  });

  test('leaves weights out where a processor or a configuration is asked for', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    for (const kind of ['processor', 'config'] as const) {
      expect(fs.readdirSync(await folderOf(settings, { kind })).sort()).toEqual([
        'config.json',
        'tokenizer.json',
      ]);
    }
    expect(fs.readdirSync(await folderOf(settings))).toHaveLength(3);
  });

  test('tells its progress in bytes', async () => {
    const hub = await hubWithModel();
    const seen: number[] = [];
    let total = 0;
    await folderOf(hub.settings(), {
      onProgress: ({ doneBytes, totalBytes }) => {
        seen.push(doneBytes);
        total = totalBytes;
      },
    });
    expect(total).toBe(weights.length + 5000 + config.length);
    expect(seen.at(-1)).toBe(total);
    expect(seen.every((bytes, i) => i === 0 || bytes >= seen[i - 1]!)).toBe(true);
  });
});

describe('an interrupted download', () => {
  test('goes on where the connection broke', async () => {
    const hub = await hubWithModel();
    let breaks = 2;
    hub.rules.push((call, response) => {
      if (call.host !== 'storage' || !call.path.includes(sha256(weights)) || breaks-- <= 0) return false;
      breakAfter(100_000, weights, call, response);
      return true;
    });
    const folder = await folderOf(hub.settings());
    expect(read(folder, 'model.safetensors').equals(weights)).toBe(true);
    const ranges = hub.calls
      .filter(({ host, path }) => host === 'storage' && path.includes(sha256(weights)))
      .map(({ range }) => range);
    // What was on its way when a connection breaks may be lost with it.
    const starts = ranges.map((range) => Number(/^bytes=(\d+)-$/.exec(range ?? 'bytes=0-')?.[1]));
    expect(starts).toHaveLength(3);
    expect(starts[0]).toBe(0);
    expect(starts[1]).toBeGreaterThan(0);
    expect(starts[1]).toBeLessThanOrEqual(100_000);
    expect(starts[2]).toBeGreaterThan(starts[1]!);
    expect(starts[2]).toBeLessThanOrEqual(200_000);
  });

  test('goes on in another process: what was there is kept, hashed, and completed', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    hub.rules.push((call, response) => {
      if (call.host !== 'storage' || !call.path.includes(sha256(weights))) return false;
      if (call.range === undefined) breakAfter(120_000, weights, call, response);
      else response.destroy();
      return true;
    });
    const error = await failure(settings);
    expect(error.message).toMatch(
      /^someone\/tiny: model\.safetensors: expected an answer of http.*, received .*, 4 times; check the connection and try again: what was downloaded is kept/,
    );
    const blobs = join(settings.cacheFolder, 'models--someone--tiny/blobs');
    const partial = fs.readdirSync(blobs).find((name) => name.endsWith('.incomplete'))!;
    const kept = fs.statSync(join(blobs, partial)).size;
    expect(kept).toBeGreaterThan(0);
    expect(kept).toBeLessThanOrEqual(120_000);

    hub.rules.length = 0;
    hub.calls.length = 0;
    const folder = await folderOf(settings);
    expect(read(folder, 'model.safetensors').equals(weights)).toBe(true);
    expect(hub.downloads('model.safetensors').map(({ range }) => range)).toEqual([`bytes=${kept}-`]);
    expect(fs.readdirSync(blobs).some((name) => name.includes('incomplete'))).toBe(false);
  });

  test("takes over what an earlier version of Python's left", async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    const blobs = join(settings.cacheFolder, 'models--someone--tiny/blobs');
    fs.mkdirSync(blobs, { recursive: true });
    fs.writeFileSync(join(blobs, `${sha256(weights)}.incomplete`), weights.subarray(0, 50_000));
    await folderOf(settings);
    expect(hub.downloads('model.safetensors').map(({ range }) => range)).toEqual(['bytes=50000-']);
  });

  test('begins anew with a server that knows no ranges', async () => {
    const hub = await hubWithModel();
    let first = true;
    hub.rules.push((call, response) => {
      if (call.host !== 'storage' || !call.path.includes(sha256(weights))) return false;
      if (first) breakAfter(1000, weights, call, response);
      else sendBytes(weights, { range: undefined }, response);
      first = false;
      return true;
    });
    expect(read(await folderOf(hub.settings()), 'model.safetensors').equals(weights)).toBe(true);
  });

  test('gives a connection up that brings nothing', async () => {
    const hub = await hubWithModel();
    let hangs = 1;
    hub.rules.push((call, response) => {
      if (call.host !== 'storage' || hangs-- <= 0) return false;
      response.writeHead(200, { 'content-length': 5000 });
      response.write('x');
      return true;
    });
    const settings = hub.settings({ retry: { attempts: 4, firstDelayMs: 1, stallMs: 500 } });
    expect(fs.readdirSync(await folderOf(settings))).toHaveLength(3);
  });

  test('stops when it is told to, and keeps what it has', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    const controller = new AbortController();
    hub.rules.push(hangAfter(70_000));
    const stopped = folderOf(settings, { signal: controller.signal, onProgress: stopAtWeights(controller) });
    await expect(stopped).rejects.toThrow('enough');
    hub.rules.length = 0;
    hub.calls.length = 0;
    await folderOf(settings);
    expect(hub.downloads('model.safetensors')[0]!.range).toMatch(/^bytes=[1-9]\d*-$/);
    await expect(folderOf(settings, { signal: controller.signal })).rejects.toThrow('enough');
  });

  test('is tried again when the server is busy, after the time that it asks for', async () => {
    const hub = await hubWithModel();
    const busy = [503, 429, 500];
    hub.rules.push((_, response) => {
      const status = busy.pop();
      if (status === undefined) return false;
      response.writeHead(status, { 'retry-after': '0' }).end();
      return true;
    });
    expect(fs.readdirSync(await folderOf(hub.settings()))).toHaveLength(3);
  });
});

describe('wrong bytes', () => {
  const corrupt = (hub: HubServer, times: number, name = sha256(weights)): void => {
    hub.rules.push((call, response) => {
      if (!call.path.includes(name) || !/objects|resolve/.test(call.path) || times-- <= 0) return false;
      const { bytes } = [...hub.commits.get(COMMIT)!.values()].find(
        (file) => sha256(file.bytes) === name || call.path.endsWith(name),
      )!;
      const damaged = Buffer.from(name === sha256(weights) ? weights : bytes);
      damaged[7] = damaged[7]! ^ 1;
      sendBytes(damaged, call, response);
      return true;
    });
  };

  test('are fetched once more', async () => {
    const hub = await hubWithModel();
    corrupt(hub, 1);
    expect(read(await folderOf(hub.settings()), 'model.safetensors').equals(weights)).toBe(true);
    expect(hub.downloads('model.safetensors')).toHaveLength(2);
  });

  test('twice are an error, and nothing of them stays', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    corrupt(hub, 9);
    const error = await failure(settings);
    expect(error.message).toMatch(
      new RegExp(
        `^someone/tiny: model.safetensors: expected SHA-256 ${sha256(weights)}, as the Hub lists it, received [0-9a-f]{64}, 2 times; it was removed`,
      ),
    );
    const repository = join(settings.cacheFolder, 'models--someone--tiny');
    expect(fs.readdirSync(join(repository, 'blobs')).some((name) => name.startsWith(sha256(weights)))).toBe(
      false,
    );
    expect(fs.existsSync(join(repository, 'snapshots', COMMIT, 'model.safetensors'))).toBe(false);
  });

  test("of a small file are found by git's hash", async () => {
    const hub = await hubWithModel();
    corrupt(hub, 9, 'config.json');
    expect((await failure(hub.settings())).message).toMatch(
      /config\.json: expected git's SHA-1 [0-9a-f]{40}/,
    );
  });

  test('more of them than listed are not taken', async () => {
    const hub = await hubWithModel();
    hub.rules.push((call, response) => {
      if (call.host !== 'storage' || !call.path.includes(sha256(weights))) return false;
      sendBytes(Buffer.concat([weights, weights]), call, response);
      return true;
    });
    expect((await failure(hub.settings())).message).toContain(
      'expected 300000 bytes, as the Hub lists it, received more',
    );
  });

  test('left by an earlier download do not spoil the next', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    const blobs = join(settings.cacheFolder, 'models--someone--tiny/blobs');
    fs.mkdirSync(blobs, { recursive: true });
    fs.writeFileSync(join(blobs, `${sha256(weights)}.sluice.incomplete`), noise(1000, 'other'));
    expect(read(await folderOf(settings), 'model.safetensors').equals(weights)).toBe(true);
  });
});

describe('a download at once with another', () => {
  test('waits for it: each file comes once', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    const folders = await Promise.all([1, 2, 3].map(() => folderOf(settings)));
    expect(new Set(folders).size).toBe(1);
    expect(hub.downloads('model.safetensors')).toHaveLength(1);
    expect(hub.downloads('config.json')).toHaveLength(1);
  });

  test('goes on when the other is stopped', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    const controller = new AbortController();
    hub.rules.push(hangAfter(70_000));
    let hasBegun: () => void = () => undefined;
    const begun = new Promise<void>((done) => (hasBegun = done));
    const stopped = folderOf(settings, {
      signal: controller.signal,
      onProgress: ({ file }) => file === 'model.safetensors' && hasBegun(),
    });
    stopped.catch(() => undefined);
    await begun;
    const other = folderOf(settings);
    hub.rules.length = 0;
    controller.abort(new Error('enough'));
    expect(read(await other, 'model.safetensors').equals(weights)).toBe(true);
    await expect(stopped).rejects.toThrow('enough');
  });
});

describe('the token', () => {
  const token = 'hf_secretsecretsecret';

  test('goes to the Hub and to no other host', async () => {
    const hub = await hubWithModel();
    await folderOf(hub.settings({ token }));
    const tokens = (host: string): Set<string | undefined> =>
      new Set(hub.calls.filter((call) => call.host === host).map((call) => call.token));
    expect(tokens('hub')).toEqual(new Set([`Bearer ${token}`]));
    expect(tokens('storage')).toEqual(new Set([undefined]));
  });

  test('is in no error, even when the server repeats it', async () => {
    const hub = await hubWithModel();
    hub.rules.push((call, response) => {
      refuse(response, 401, '', `Invalid token ${call.token}`);
      return true;
    });
    const error = await failure(hub.settings({ token }));
    expect(error.message).toContain('HTTP 401 (Invalid token Bearer ***)');
    expect(JSON.stringify([error, error.cause, error.stack])).not.toContain('secret');
  });
});

describe('a model that is not to be had', () => {
  const answer = (hub: HubServer, status: number, code: string): void => {
    hub.rules.push((_, response) => {
      refuse(response, status, code, 'No');
      return true;
    });
  };

  test('is gated, and the error says what to accept and to set', async () => {
    const hub = await hubWithModel();
    answer(hub, 401, 'GatedRepo');
    expect((await failure(hub.settings())).message).toBe(
      `someone/tiny: expected leave to read it: the model is gated, received HTTP 401 (No); accept its licence at ${hub.endpoint}/someone/tiny, then set HF_TOKEN to a token of that account`,
    );
    hub.rules.length = 0;
    answer(hub, 403, 'GatedRepo');
    expect((await failure(hub.settings({ token: 'hf_x' }))).message).toContain(
      'with the account of your HF_TOKEN',
    );
  });

  test('whose listing is open and whose files are gated says so too', async () => {
    const hub = await hubWithModel();
    hub.rules.push((call, response) => {
      if (!call.path.includes('/resolve/')) return false;
      refuse(response, 403, 'GatedRepo', 'Access to model someone/tiny is restricted');
      return true;
    });
    expect((await failure(hub.settings())).message).toContain(
      'the model is gated, received HTTP 403 (Access to',
    );
  });

  test('is missing or private, or its revision is missing', async () => {
    const hub = await hubWithModel();
    const missing = await failure(hub.settings(), { revision: 'v9' });
    expect(missing.message).toMatch(
      /^someone\/tiny at v9: expected a branch, tag or commit of that name, received HTTP 404 \(Invalid rev id: v9\)/,
    );
    hub.repository = 'someone/else';
    expect((await failure(hub.settings())).message).toBe(
      'someone/tiny: expected a model of that name, received HTTP 404 (Repository not found); check the name and the path: no folder of that name is here either; if the model is private, set HF_TOKEN',
    );
    answer(hub, 401, 'RepoNotFound');
    expect((await failure(hub.settings())).message).toContain(
      'if the model is private or gated, set HF_TOKEN',
    );
    const named = await failure(hub.settings(), { revision: '../../x' });
    expect(named.message).toBe(
      'someone/tiny: revision: expected a branch, tag or commit, received "../../x"; leave it out for main',
    );
  });

  test('has no weights in safetensors, or no configuration', async () => {
    const hub = await hubWithModel();
    hub.commits.get(COMMIT)!.delete('model.safetensors');
    expect((await failure(hub.settings())).message).toContain(
      'expected weights in model.safetensors, or in shards with model.safetensors.index.json, received pytorch_model.bin, onnx/model.onnx;',
    );
    hub.commits.get(COMMIT)!.delete('config.json');
    expect((await failure(hub.settings(), { kind: 'config' })).message).toContain(
      'a repository with config.json',
    );
  });
});

describe('a server that is no Hub', () => {
  test.each([
    ['a path that leaves the folder', { path: '../../model.safetensors' }, 'paths inside the repository'],
    ['an absolute path', { path: '/etc/model.safetensors' }, 'paths inside the repository'],
    ['a path with a backslash', { path: '..\\model.safetensors' }, 'paths inside the repository'],
    ['a hash that is a path', { oid: '../../../x' }, "git's hash"],
    ['a hash of the wrong length', { lfs: { oid: 'abc', size: 3 } }, 'a SHA-256 of 64'],
    ['a negative size', { size: -1, lfs: undefined }, 'a size in bytes'],
    ['a size that is none', { lfs: { oid: sha256(weights), size: '1e99' } }, 'a size in bytes'],
  ])('lists %s and is refused', async (_, entry, expected) => {
    const hub = await hubWithModel();
    hub.listedAs.set('model.safetensors', entry);
    const settings = hub.settings();
    const error = await failure(settings);
    expect(error.message).toContain(expected);
    expect(error.message).toContain('do not trust this server');
    expect(fs.readdirSync(settings.cacheFolder)).toEqual([]);
  });

  test('states no commit, or answers with something else than JSON', async () => {
    const hub = await hubWithModel();
    hub.revisions.set('main', '../../x');
    hub.commits.set('../../x', new Map());
    expect((await failure(hub.settings())).message).toContain(
      'a commit of 40 hexadecimal digits, received "../../x"',
    );
    hub.rules.push((_, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html>');
      return true;
    });
    expect((await failure(hub.settings())).message).toContain("an answer of the Hub's API");
  });

  test('redirects without end, or to a file', async () => {
    const hub = await hubWithModel();
    hub.rules.push((call, response) => {
      if (call.host !== 'storage') return false;
      response.writeHead(302, { location: call.path }).end();
      return true;
    });
    expect((await failure(hub.settings())).message).toContain('more than 10 redirects');
    hub.rules.unshift((call, response) => {
      if (call.host !== 'storage') return false;
      response.writeHead(302, { location: 'file:///etc/passwd' }).end();
      return true;
    });
    expect((await failure(hub.settings())).message).toContain('a redirect to an http address');
  });

  test('names shards in its index that lie elsewhere', async () => {
    const hub = await hubWithModel();
    hub.commits.get(COMMIT)!.delete('model.safetensors');
    hub.add('model.safetensors.index.json', '{"weight_map": {"a": "../../secret.safetensors"}}');
    expect((await failure(hub.settings())).message).toContain(
      'shards that the repository holds, received "../../secret.safetensors"',
    );
  });
});
