// `pipe`: reads the command line, runs one command, and turns its outcome into an exit code.
// Each file of commands/ is one command; a new file there is a new command, nothing else to change.

import { readdirSync, readFileSync } from 'node:fs';
import yargs, { type CommandModule } from 'yargs';
import { ConfigError, messageOf, SluiceError } from '../errors.js';
import { Stopped } from './stop.js';

/** 0 done; 1 the run failed; 2 wrong usage or pipeline file; 130 and 143 stopped by SIGINT and SIGTERM. */
export type ExitCode = 0 | 1 | 2 | 130 | 143;

/** Declares a command; the default export of each file in commands/. Import what is heavy inside the handler. */
export function command<Options>(module: CommandModule<object, Options>): CommandModule<object, Options> {
  return module;
}

/** A command that ran to its end and found something wrong: printed already, exit code 1. */
export class CommandFailed extends SluiceError {
  override readonly code = 'COMMAND';
}

class UsageError extends ConfigError {}

/** Runs `pipe ARGS...`. @returns the exit code; never throws */
export async function main(args: readonly string[]): Promise<ExitCode> {
  try {
    const parser = yargs()
      .scriptName('pipe')
      .usage('$0 <command>\n\nFine-tunes Gemma 3n from declarative pipeline files.')
      .command((await loadCommands()) as CommandModule[])
      .demandCommand(1, 'Name a command')
      .strict()
      .recommendCommands()
      .check((given) => refuseRepeated(given, listsOf(parser)))
      .version(packageVersion())
      .wrap(100)
      .exitProcess(false)
      .fail((message, error, self) => {
        // yargs reports its own findings as a message, and what a handler threw as an error.
        if (error && error.name !== 'YError') throw error;
        self.showHelp('error');
        throw new UsageError(message || messageOf(error));
      });
    await parser.parseAsync([...args], { rawArguments: args });
    return 0;
  } catch (error) {
    return report(error);
  }
}

function report(error: unknown): ExitCode {
  if (error instanceof CommandFailed) return 1;
  if (error instanceof Stopped) {
    console.error(error.message);
    return error.exitCode;
  }
  if (error instanceof UsageError) console.error(`\n${error.message}`);
  else if (error instanceof SluiceError) console.error(`${error.name}: ${error.message}`);
  else console.error(error);
  return error instanceof ConfigError ? 2 : 1;
}

/** The options that may be given again; yargs tells them, and its types do not say so. */
function listsOf(parser: unknown): readonly string[] {
  return (parser as { getOptions(): { readonly array: readonly string[] } }).getOptions().array;
}

/** yargs makes a list of an option that is given again, whether it may be one or not. */
function refuseRepeated(given: Readonly<Record<string, unknown>>, lists: readonly string[]): true {
  for (const [key, value] of Object.entries(given)) {
    const name = key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`); // yargs has --stage-ms as stageMs besides
    if (!Array.isArray(value) || ['_', '--', 'raw-arguments', ...lists].includes(name)) continue;
    throw new UsageError({
      where: `--${name}`,
      expected: 'one value',
      received: value.map(String).join(' and '),
      remedy: 'leave all but one out',
    });
  }
  return true;
}

async function loadCommands(): Promise<CommandModule<object, never>[]> {
  const folder = new URL('./commands/', import.meta.url);
  const files = readdirSync(folder).filter((name) => /^[a-z-]+\.(js|ts)$/.test(name));
  const modules = files
    .sort()
    .map((name) => import(new URL(name, folder).href) as Promise<{ default: CommandModule }>);
  return (await Promise.all(modules)).map((module) => module.default as CommandModule<object, never>);
}

export function packageVersion(): string {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}
