// Errors of checkpoint files in one wording, and how names from untrusted files are shown in them.

import { CheckpointError, SluiceError, type Fault, messageOf } from '../errors.js';

/** An error about one file, or one tensor in it. */
export function checkpointFault(
  file: string,
  tensor: string | undefined,
  fault: Omit<Fault, 'where'>,
  cause?: unknown,
): CheckpointError {
  const where = tensor === undefined ? file : `${file}: tensor ${quote(tensor)}`;
  return new CheckpointError({ where, ...fault }, cause === undefined ? undefined : { cause });
}

/** A name from a file in quotes, control characters escaped, cut at 120 characters. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 120 ? `${name.slice(0, 117)}...` : name);
}

/** "3 tensors: a, b, c"; after twenty names, how many more there are. */
export function listNames(names: readonly string[], noun = 'tensor'): string {
  const shown = names.slice(0, 20).map((name) => (/^[\w.-]{1,120}$/.test(name) ? name : quote(name)));
  const more = names.length > 20 ? ` and ${names.length - 20} more` : '';
  return `${names.length} ${noun}${names.length === 1 ? '' : 's'}: ${shown.join(', ')}${more}`;
}

/** "[2, 3]" */
export function showShape(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}

const remedies: Readonly<Record<string, string>> = {
  ENOSPC: 'free space on that disk or choose another folder',
  EDQUOT: 'free space in your quota or choose another folder',
  EFBIG: 'lift the limit on file sizes or set a smaller maxShardBytes',
  EACCES: 'allow writing there or choose another folder',
  EPERM: 'allow writing there or choose another folder',
  EROFS: 'choose a folder on a disk that is not read-only',
  ENOENT: 'check the path or choose another folder',
  ENOTDIR: 'part of the path is a file: choose another folder',
  EMFILE: 'raise the limit on open files',
  ENFILE: 'raise the limit on open files',
};

/** What could not be written, as an error that says what to do. Errors that are ours already pass unchanged. */
export function writeFault(path: string, cause: unknown): SluiceError {
  if (cause instanceof SluiceError) return cause;
  const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? '';
  return checkpointFault(
    path,
    undefined,
    {
      expected: 'to write the checkpoint',
      received: messageOf(cause),
      remedy: `${remedies[code] ?? 'see the cause'}; earlier checkpoints are untouched`,
    },
    cause,
  );
}

/** What could not be read, likewise. */
export function readFault(path: string, what: string, cause: unknown): SluiceError {
  if (cause instanceof SluiceError) return cause;
  const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? '';
  const missing = code === 'ENOENT' || code === 'ENOTDIR';
  return checkpointFault(
    path,
    undefined,
    {
      expected: what,
      received: missing ? 'no such file' : messageOf(cause),
      remedy: missing ? 'check the path, or download or save it again' : 'check the file and its permissions',
    },
    cause,
  );
}
