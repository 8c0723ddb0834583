// Addresses of files that are read over HTTP: what is asked for, and the name that people see, which holds no secrets.

import { DataError } from '../errors.js';
import type { HubSettings } from '../hub/settings.js';

/** A file's address. */
export interface RemoteUrl {
  /** What is asked for, without a user in it. */
  readonly href: string;
  /** The address without user, query and fragment: signed addresses carry secrets there, which change from day to day. */
  readonly name: string;
  /** Of an address with a user in it, for its own origin. */
  readonly authorization?: string;
}

/** Whether a path has a scheme, as in https://host/file: then it is no path of this machine. */
export function isRemote(path: string): boolean {
  return /^[a-z][a-z0-9+.-]+:\/\//i.test(path);
}

/** Reads an address: http, https, or hf://datasets/owner/name[@revision]/path (hf://owner/name/path for a model's).
 *  @throws {DataError} when it is of another kind, or none */
export function remoteUrl(path: string, { endpoint, isOffline }: HubSettings): RemoteUrl {
  const isHub = /^hf:\/\//i.test(path);
  if (isHub && isOffline) {
    throw addressFault(path, 'a file of this machine while HF_HUB_OFFLINE is set', 'an address of the Hub', {
      remedy: 'unset HF_HUB_OFFLINE, or name a copy of the file',
    });
  }
  const text = isHub ? hubAddress(path, endpoint) : path;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^https?:$/.test(url.protocol)) {
    const received = url ? `one of ${url.protocol}//` : 'one that cannot be read';
    throw addressFault(path, 'an address of http://, https:// or hf://', received);
  }
  if (/\*/.test(url.pathname)) {
    throw addressFault(path, 'the address of one file', 'a pattern, which a server cannot expand', {
      remedy: 'list the files, or write a{1,2,3}.parquet',
    });
  }
  const { username, password } = url;
  const user = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  url.username = '';
  url.password = '';
  url.hash = '';
  const authorization = `Basic ${Buffer.from(user).toString('base64')}`;
  return {
    href: url.href,
    name: isHub ? path : nameOf(url.href),
    ...(user === ':' ? {} : { authorization }),
  };
}

function hubAddress(path: string, endpoint: string): string {
  const found = /^hf:\/\/(datasets\/|models\/)?([\w.-]+\/[\w.-]+)(?:@([^/]+))?\/([^?#]+)$/i.exec(path);
  if (!found) {
    const expected = 'an address such as hf://datasets/owner/name/train.parquet';
    throw addressFault(path, expected, 'one that lacks owner, name or path');
  }
  const [, kind = '', repository, revision = 'main', file = ''] = found;
  const folder = /^datasets/i.test(kind) ? 'datasets/' : '';
  // The Hub's own Parquet copies of data sets lie under a reference with slashes in its name.
  const reference = revision === '~parquet' ? 'refs/convert/parquet' : decodeURIComponent(revision);
  const segments = file.split('/').map((segment) => encodeURIComponent(decodeURIComponent(segment)));
  return `${endpoint}/${folder}${repository}/resolve/${encodeURIComponent(reference)}/${segments.join('/')}`;
}

function nameOf(address: string): string {
  return address.replace(/[?#].*$/s, '').replace(/^([a-z][a-z0-9+.-]*:\/\/)[^/]*@/i, '$1');
}

function addressFault(
  path: string,
  expected: string,
  received: string,
  { remedy = 'correct the address, or name a file of this machine' } = {},
): DataError {
  return new DataError({ where: `file "${nameOf(path)}"`, expected, received, remedy });
}
