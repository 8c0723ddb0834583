// Before any test: the addon is there.
import { ensureAddon } from '../src/native/setup.js';

export default async function setup(): Promise<void> {
  await ensureAddon({});
}
