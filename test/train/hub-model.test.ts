// A job whose model is a repository of the Hub: downloaded once, by the host; a run that is continued stays with the
// commit that it began with.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { readState } from '../../src/checkpoint/index.js';
import { checkpoints, gemma3n, loadProcessor } from '../../src/index.js';
import { COMMIT, HubServer, OTHER_COMMIT } from '../hub/hub-server.js';
import { modelFolder, temporaryFolder } from './job.js';
import { runJob } from './run-job.js';

async function hubWithModel(): Promise<HubServer> {
  const hub = await HubServer.start();
  for (const name of fs.readdirSync(modelFolder())) {
    const bytes = fs.readFileSync(join(modelFolder(), name));
    hub.add(name, bytes);
    // a later commit that no run could go on with
    hub.add(name, name === 'config.json' ? '{}' : bytes, { commit: OTHER_COMMIT });
  }
  const before = { ...process.env };
  Object.assign(process.env, { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: temporaryFolder(), HF_TOKEN: '' });
  onTestFinished(() => {
    process.env = before;
  });
  return hub;
}

const job = {
  sinks: [checkpoints()],
  change: (spec: Record<string, unknown>) => ({
    ...spec,
    model: gemma3n('someone/tiny', { weights: 'random', projector: 'whitened' }),
  }),
};

it('a run downloads its model, and goes on with the same commit when the branch has moved', async () => {
  const hub = await hubWithModel();
  const first = await runJob({ ...job, maxSteps: 1 });
  expect(first.error).toBeUndefined();
  expect(first.lines).toContain(`model someone/tiny at commit ${COMMIT}`);
  const downloads = hub.calls.filter(({ path }) => path.includes('/resolve/'));
  expect(new Set(downloads.map(({ path }) => path)).size).toBe(downloads.length);
  const origin = { repository: 'someone/tiny', revision: 'main', commit: COMMIT };
  expect(readState(join(first.outDir, 'checkpoint-1')).origin).toEqual(origin);

  hub.revisions.set('main', OTHER_COMMIT);
  hub.calls.length = 0;
  const second = await runJob({ ...job, maxSteps: 2, outDir: first.outDir, resume: true });
  expect(second.error).toBeUndefined();
  expect(second.result!.end.steps).toBe(2);
  expect(hub.calls).toEqual([]);
  expect(readState(join(first.outDir, 'checkpoint-2')).origin).toEqual(origin);

  const set = ['model.revision=v2'];
  const third = await runJob({ ...job, maxSteps: 3, outDir: first.outDir, resume: true, set });
  expect(third.error!.message).toBe(
    'model: expected someone/tiny at main, with which the run began, received someone/tiny at v2; leave out --resume to start anew, or change the pipeline back',
  );
});

it('a processor comes from a repository without its weights', async () => {
  const hub = await hubWithModel();
  hub.add('model.safetensors', 'not wanted');
  const processor = await loadProcessor('someone/tiny');
  expect(processor.decode(processor.tokenizer.encode('red'))).toContain('red');
  expect(hub.calls.some(({ path }) => path.includes('safetensors'))).toBe(false);
});
