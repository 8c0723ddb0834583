// Loads a pipeline file (TypeScript or JavaScript) with jiti; `sluice` in it is this very package.

import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createJiti } from 'jiti';
import { ConfigError, messageOf } from '../errors.js';
import { type Pipeline, decodePipeline } from '../train/pipeline.js';

/** Loads and decodes a pipeline file.
 *  @param overrides 'key.path=value' each, as given to --set
 *  @throws {ConfigError} when the file is missing, does not load, or is wrong: every fault with its path */
export async function loadPipeline(file: string, overrides: readonly string[]): Promise<Pipeline> {
  const path = resolve(file);
  if (!existsSync(path)) {
    throw new ConfigError({
      where: file,
      expected: 'a pipeline file',
      received: 'no such file',
      remedy: 'check the path',
    });
  }
  return decodePipeline(await defaultExport(path, file), overrides, file);
}

async function defaultExport(path: string, file: string): Promise<unknown> {
  const index = fileURLToPath(new URL('../index.js', import.meta.url));
  const jiti = createJiti(import.meta.url, {
    alias: { sluice: index },
    fsCache: false,
    interopDefault: false, // or a file without a default export would be its own
    nativeModules: ['sluice'],
  });
  let module: { default?: unknown };
  try {
    module = await jiti.import<{ default?: unknown }>(path);
  } catch (cause) {
    throw new ConfigError(
      {
        where: file,
        expected: 'a module that loads',
        received: messageOf(cause),
        remedy: 'correct the file',
      },
      { cause },
    );
  }
  if (module.default === undefined) {
    throw new ConfigError({
      where: file,
      expected: 'a default export made by pipeline({...})',
      received: 'none',
      remedy: 'write export default pipeline({...})',
    });
  }
  return module.default;
}
