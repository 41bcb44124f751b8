import { existsSync } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NemuError } from '../client/errors.ts';
import { cacheRoot } from './cache.ts';
import { type CommandResult, commandOutput, findProgram, runCommand } from './command.ts';

/** Debian's name of an architecture. */
export type DebianArch = 'amd64' | 'arm64';

/** One stanza of `apt-cache show`: field names as Debian writes them. */
export type PackageFields = ReadonlyMap<string, string>;

/**
 * A way to ask APT: either the machine's own lists, or private ones below the cache folder, which need no
 * root and may be for another architecture.
 */
export interface Apt {
  readonly arch: DebianArch;
  readonly isPrivate: boolean;
  readonly options: readonly string[];
}

/** True when this machine has the programs of APT and dpkg that we use. */
export function hasApt(): boolean {
  return ['apt-get', 'apt-cache', 'dpkg-deb', 'tar'].every((name) => findProgram(name) !== undefined);
}

/** The machine's own lists, as the last `apt-get update` of its administrator left them. */
export function systemApt(arch: DebianArch): Apt {
  return { arch, isPrivate: false, options: [] };
}

/**
 * Private lists below the cache folder, from the machine's own sources.list.
 * `refresh` fetches them anew; otherwise that is done only when there are none.
 * @throws NemuError APT_OFFLINE when no list could be fetched.
 */
export async function privateApt(arch: DebianArch, refresh: boolean): Promise<Apt> {
  const root = join(cacheRoot(), 'apt', arch);
  const lists = join(root, 'lists');
  const status = join(root, 'status');
  await mkdir(join(lists, 'partial'), { recursive: true });
  await mkdir(join(root, 'cache', 'archives', 'partial'), { recursive: true });
  if (!existsSync(status)) await writeFile(status, '');
  const apt: Apt = {
    arch,
    isPrivate: true,
    options: [
      ...['-o', `APT::Architecture=${arch}`, '-o', `APT::Architectures=${arch}`],
      ...['-o', `Dir::State=${root}`, '-o', `Dir::State::lists=${lists}`, '-o', `Dir::State::status=${status}`],
      ...['-o', `Dir::Cache=${join(root, 'cache')}`, '-o', 'APT::Sandbox::User='],
    ],
  };
  const hasLists = async () => (await readdir(lists)).some((name) => name.includes('_Packages'));
  if (refresh || !(await hasLists())) {
    // One source of several that fails makes the status non-zero: what counts is whether lists are there.
    const update = await updateLists(apt);
    if (!(await hasLists())) {
      throw new NemuError('APT_OFFLINE', `APT could not fetch any package list: ${lastLines(update.stderr)}`, {
        hint: 'Check the network and /etc/apt/sources.list, then try again.',
      });
    }
  }
  return apt;
}

const LOCK_RETRY_MS = 300;
const LOCK_TIMEOUT_MS = 120_000;

/** `apt-get update`, waiting for another process of ours that does the same: for lists APT itself does not wait. */
async function updateLists(apt: Apt): Promise<CommandResult> {
  const deadline = Date.now() + LOCK_TIMEOUT_MS;
  for (;;) {
    const result = await runCommand('apt-get', [...apt.options, '-q', 'update']);
    if (!result.stderr.includes('Could not get lock') || Date.now() > deadline) return result;
    await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
  }
}

/** What APT knows of a package (of its newest version), or undefined. */
export async function showPackage(apt: Apt, name: string): Promise<PackageFields | undefined> {
  const { status, stdout } = await runCommand('apt-cache', [...apt.options, 'show', '--no-all-versions', name]);
  return status === 0 ? parseStanza(stdout.toString('utf8')) : undefined;
}

/** Names of all packages that start with `prefix`. */
export async function packageNames(apt: Apt, prefix: string): Promise<string[]> {
  const { stdout } = await runCommand('apt-cache', [...apt.options, 'pkgnames', prefix]);
  return stdout.toString('utf8').split('\n').filter(Boolean);
}

/**
 * First stanza of a control file (Debian Policy 5.1): `Name: value`, with continuation lines that start
 * with a space or tab.
 */
export function parseStanza(text: string): PackageFields | undefined {
  const fields = new Map<string, string>();
  let current: string | undefined;
  for (const line of text.split('\n')) {
    if (line.trim() === '') {
      if (fields.size > 0) break;
    } else if (/^[ \t]/.test(line)) {
      if (current !== undefined) fields.set(current, `${fields.get(current)}\n${line.trim()}`);
    } else {
      const colon = line.indexOf(':');
      if (colon <= 0) continue;
      current = line.slice(0, colon);
      fields.set(current, line.slice(colon + 1).trim());
    }
  }
  return fields.size > 0 ? fields : undefined;
}

/**
 * Downloads one package into `folder` and gives the path of the .deb file. APT checks its hash.
 * @param onProgress bytes so far and in all, as APT reports them.
 * @throws NemuError PACKAGE_DOWNLOAD
 */
export async function downloadPackage(
  apt: Apt,
  name: string,
  folder: string,
  onProgress: (bytes: number, total: number) => void,
): Promise<string> {
  const fields = await showPackage(apt, name);
  const total = Number(fields?.get('Size') ?? 0);
  onProgress(0, total);
  const args = [...apt.options, '-q', '-o', 'APT::Status-Fd=1', '-o', 'APT::Sandbox::User=', 'download', name];
  const before = new Set(await readdir(folder));
  const result = await runCommand('apt-get', args, {
    cwd: folder,
    onLine(line) {
      // "dlstatus:<item>:<percent>:<text>", see README.progress-reporting of APT.
      const percent = /^dlstatus:\d+:([\d.]+):/.exec(line)?.[1];
      if (percent) onProgress(Math.round((total * Number(percent)) / 100), total);
    },
  });
  const file = (await readdir(folder)).find((entry) => entry.endsWith('.deb') && !before.has(entry));
  if (result.status !== 0 || !file) {
    throw new NemuError(
      'PACKAGE_DOWNLOAD',
      `The package ${name} could not be downloaded: ${lastLines(result.stderr)}`,
      {
        hint: 'Check the network and /etc/apt/sources.list, then try again.',
      },
    );
  }
  onProgress(total, total);
  return join(folder, file);
}

/** Unpacks the files of a .deb into `folder`, without the documentation. */
export async function unpackPackage(deb: string, folder: string, members: readonly string[] = []): Promise<void> {
  // Modes and owners of the archive are not needed, and an unprivileged user could not set them.
  const script = 'set -o pipefail; deb=$1; shift; dpkg-deb --fsys-tarfile "$deb" | tar -x "$@"';
  const select = members.length > 0 ? ['--', ...members] : [];
  const args = ['-C', folder, '--no-same-owner', '--exclude=./usr/share', ...select];
  await commandOutput('bash', ['-c', script, 'unpack', deb, ...args]);
}

function lastLines(text: string): string {
  return text.trim().split('\n').slice(-4).join(' ') || 'APT gave no reason.';
}
