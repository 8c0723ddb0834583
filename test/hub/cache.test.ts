// The cache: used without a network, shared with Python's huggingface_hub, and where the environment says that it is.

import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { HubError } from '../../src/errors.js';
import {
  type HubSettings,
  hubSettings,
  isRepository,
  type ResolveOptions,
  resolveModel,
} from '../../src/hub/index.js';
import { pythonWith } from '../bench/table.js';
import { COMMIT, gitHash, HubServer, noise, sha256, temporaryFolder } from './hub-server.js';

const run = promisify(execFile);
const files: Record<string, { bytes: Buffer; isLarge: boolean }> = {
  'config.json': { bytes: Buffer.from('{"model_type": "gemma3n_text"}'), isLarge: false },
  'tokenizer.json': { bytes: noise(4000, 'tokenizer'), isLarge: true },
  'model.safetensors': { bytes: noise(50_000, 'weights'), isLarge: true },
};

async function hubWithModel(): Promise<HubServer> {
  const hub = await HubServer.start();
  for (const [path, { bytes, isLarge }] of Object.entries(files)) hub.add(path, bytes, { isLarge });
  return hub;
}

/** A snapshot as Python's earlier versions leave it: blobs, a ref, relative links, no listing. */
function pythonSnapshot(cacheFolder: string, names = Object.keys(files)): string {
  const repository = join(cacheFolder, 'models--someone--tiny');
  const snapshot = join(repository, 'snapshots', COMMIT);
  for (const folder of ['blobs', 'refs', `snapshots/${COMMIT}`]) {
    fs.mkdirSync(join(repository, folder), { recursive: true });
  }
  fs.writeFileSync(join(repository, 'refs/main'), COMMIT);
  for (const name of names) {
    const { bytes, isLarge } = files[name]!;
    const hash = isLarge ? sha256(bytes) : gitHash(bytes);
    fs.writeFileSync(join(repository, 'blobs', hash), bytes);
    fs.symlinkSync(`../../blobs/${hash}`, join(snapshot, name));
  }
  return snapshot;
}

async function folderOf(settings: HubSettings, options: ResolveOptions = {}): Promise<string> {
  return (await resolveModel('someone/tiny', options, settings)).folder;
}

async function message(settings: HubSettings, options: ResolveOptions = {}): Promise<string> {
  const error: unknown = await folderOf(settings, options).catch((error: unknown) => error);
  expect(error).toBeInstanceOf(HubError);
  return (error as HubError).message.replaceAll(settings.cacheFolder, 'CACHE');
}

describe('without a network', () => {
  test('what was downloaded is found by its branch and by its commit', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    const folder = await folderOf(settings);
    hub.calls.length = 0;
    expect(await folderOf({ ...settings, isOffline: true })).toBe(folder);
    expect(await folderOf(settings, { offline: true, revision: COMMIT })).toBe(folder);
    expect(hub.calls).toEqual([]);
  });

  test('what was not is an error that says what is lacking', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings({ isOffline: true });
    expect(await message(settings)).toBe(
      'someone/tiny: expected to find it in the cache, CACHE, since the Hub is not to be asked, received no main of it; download it once without HF_HUB_OFFLINE and offline: true, or name a folder that holds the model',
    );
    expect(await message(settings, { revision: COMMIT })).toContain(`received nothing of commit ${COMMIT}`);
    await folderOf(settings, { offline: false, kind: 'processor' });
    expect(await message(settings)).toContain(`received commit ${COMMIT} without model.safetensors;`);
    expect(await folderOf(settings, { kind: 'processor' })).toContain(COMMIT);
  });

  test('a file that is cut short is lacking', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    const folder = await folderOf(settings);
    fs.truncateSync(fs.realpathSync(join(folder, 'model.safetensors')), 100);
    expect(await message(settings, { offline: true })).toContain('without model.safetensors');
    await folderOf(settings);
    expect(fs.statSync(join(folder, 'model.safetensors')).size).toBe(50_000);
  });

  test('an unreachable Hub is said, and the cache used', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    const folder = await folderOf(settings);
    await hub.close();
    const notices: string[] = [];
    expect(await folderOf(settings, { onNotice: (text) => notices.push(text) })).toBe(folder);
    expect(notices).toHaveLength(1);
    expect(notices[0]).toMatch(
      /^someone\/tiny: expected an answer of http:.* received no connection to .*, 2 times;/,
    );
    expect(notices[0]).toContain(`Using what the cache has of someone/tiny: ${COMMIT}`);
    expect(await message(settings, { revision: 'other' })).toContain(
      'HF_HUB_OFFLINE=1 takes what the cache has',
    );
  });

  test('a model that is gone or closed is no reason to use an old copy in silence', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    await folderOf(settings);
    hub.repository = 'someone/else';
    expect(await message(settings)).toContain('HTTP 404');
  });
});

describe("Python's cache", () => {
  test('is used as it is', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    const snapshot = pythonSnapshot(settings.cacheFolder);
    expect(await folderOf(settings, { offline: true })).toBe(snapshot);
    expect(await folderOf(settings)).toBe(snapshot);
    expect(hub.calls.some(({ path }) => path.includes('/resolve/'))).toBe(false);
  });

  test('is completed where it lacks files', async () => {
    const hub = await hubWithModel();
    const settings = hub.settings();
    pythonSnapshot(settings.cacheFolder, ['config.json', 'tokenizer.json']);
    expect(await message(settings, { offline: true })).toContain(
      'without model.safetensors or model.safetensors.index.json',
    );
    await folderOf(settings);
    expect(hub.calls.filter(({ path }) => path.includes('/resolve/'))).toHaveLength(1);
  });

  test('and ours are one: laid out alike, each served by what the other downloaded', async ({ skip }) => {
    const python = pythonWith('huggingface_hub');
    if (python === undefined)
      return skip('there is no Python with huggingface_hub (SLUICE_PYTHON names one)');
    const hub = await hubWithModel();
    const [ours, theirs] = [hub.settings(), hub.settings()];
    const folder = await folderOf(ours);
    const script =
      'import sys, huggingface_hub as h; print(h.snapshot_download("someone/tiny", cache_dir=sys.argv[1]))';
    const download = async (cacheFolder: string): Promise<string> => {
      const env = { PATH: process.env['PATH'], HF_ENDPOINT: hub.endpoint, HF_HOME: temporaryFolder() };
      const { stdout } = await run(python, ['-c', script, cacheFolder], { env });
      return stdout.trim();
    };
    await download(theirs.cacheFolder);
    expect(layout(ours.cacheFolder)).toEqual(layout(theirs.cacheFolder));

    hub.calls.length = 0;
    expect(await download(ours.cacheFolder)).toBe(folder);
    expect(hub.calls.some(({ path }) => path.includes('/resolve/'))).toBe(false);
    await folderOf(theirs, { revision: COMMIT });
    expect(hub.calls.some(({ path }) => path.includes('/resolve/'))).toBe(false);
  });
});

/** Every file of a cache with its bytes, every link with its goal; without locks and the tag for backup tools. */
function layout(folder: string): Record<string, string> {
  const paths = fs.readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  const entries = paths
    .filter((path) => !/^(\.locks|CACHEDIR)/.test(path))
    .map((path): [string, string] => {
      const status = fs.lstatSync(join(folder, path));
      if (status.isSymbolicLink()) return [path, `-> ${fs.readlinkSync(join(folder, path))}`];
      return [path, status.isDirectory() ? '' : fs.readFileSync(join(folder, path)).toString('base64')];
    });
  return Object.fromEntries(entries);
}

describe('names', () => {
  test('of folders win over those of repositories', async () => {
    const home = process.cwd();
    const folder = temporaryFolder();
    fs.mkdirSync(join(folder, 'someone/tiny'), { recursive: true });
    process.chdir(folder);
    try {
      expect(isRepository('someone/tiny')).toBe(false);
      expect(isRepository('someone/other')).toBe(true);
      expect(await resolveModel('someone/tiny')).toEqual({ folder: 'someone/tiny' });
    } finally {
      process.chdir(home);
    }
  });

  test.each([
    './model',
    '../model',
    '/model',
    'a/b/c',
    'model',
    'a/',
    'a--b/c',
    'a/..',
    'a/b.git',
    'a/b c',
    '',
  ])('"%s" is no repository', async (name) => {
    expect(isRepository(name)).toBe(false);
    expect(await resolveModel(name)).toEqual({ folder: name });
  });
});

describe('settings', () => {
  const home = '/home/someone';

  test("are those of Python's variables", () => {
    expect(hubSettings({ HOME: home })).toMatchObject({
      endpoint: 'https://huggingface.co',
      cacheFolder: '/home/someone/.cache/huggingface/hub',
      isOffline: false,
      token: undefined,
    });
    expect(hubSettings({ HOME: home, XDG_CACHE_HOME: '/x' }).cacheFolder).toBe('/x/huggingface/hub');
    expect(hubSettings({ HOME: home, HF_HOME: '~/hf' }).cacheFolder).toBe('/home/someone/hf/hub');
    expect(hubSettings({ HOME: home, HF_HUB_CACHE: '$HOME/hub', HF_HOME: '/x' }).cacheFolder).toBe(
      '/home/someone/hub',
    );
    expect(hubSettings({ HOME: home, HF_ENDPOINT: 'http://mirror/hf/' }).endpoint).toBe('http://mirror/hf');
    for (const value of ['1', 'true', 'YES', 'on']) {
      expect(hubSettings({ HOME: home, HF_HUB_OFFLINE: value }).isOffline).toBe(true);
    }
    expect(hubSettings({ HOME: home, HF_HUB_OFFLINE: '0' }).isOffline).toBe(false);
  });

  test('take the token of the environment, else of the file that a login leaves', () => {
    const folder = temporaryFolder();
    fs.writeFileSync(join(folder, 'token'), 'hf_file\n');
    expect(hubSettings({ HF_HOME: folder }).token).toBe('hf_file');
    expect(hubSettings({ HF_HOME: folder, HF_TOKEN: ' hf_given\n' }).token).toBe('hf_given');
    expect(hubSettings({ HF_HOME: folder, HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' }).token).toBeUndefined();
    expect(hubSettings({ HF_HOME: dirname(folder), HF_TOKEN_PATH: join(folder, 'token') }).token).toBe(
      'hf_file',
    );
  });

  test('refuse what cannot be an address or a token, without showing it', () => {
    expect(() => hubSettings({ HF_ENDPOINT: 'ftp://x' })).toThrow(
      /^HF_ENDPOINT: expected a server's address/,
    );
    expect(() => hubSettings({ HF_ENDPOINT: 'hub' })).toThrow(HubError);
    expect(() => hubSettings({ HF_ENDPOINT: 'https://me:secret@hub' })).toThrow(/^(?!.*secret)HF_ENDPOINT/);
    expect(() => hubSettings({ HOME: home, HF_TOKEN: 'hf_se cret' })).toThrow(
      /^(?!.*cret")HF_TOKEN: expected a token/,
    );
  });
});
