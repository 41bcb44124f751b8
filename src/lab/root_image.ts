/** Root file systems of guests: Debian, made from its packages without privileges by a guest that installs them. */
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { NemuError } from '../client/errors.ts';
import { type Apt, privateApt, systemApt } from './apt.ts';
import { readAsset } from './assets.ts';
import { cacheRoot } from './cache.ts';
import { commandOutput, runCommand } from './command.ts';
import { type Guest, hostArch } from './guest.ts';
import { debianArch } from './guest_debian.ts';

/** What a guest for people who test kernels and machines has at hand. */
export const ROOT_PACKAGES = [
  ...['systemd-sysv', 'udev', 'dbus', 'kmod', 'procps', 'less', 'e2fsprogs', 'ca-certificates', 'netbase'],
  ...['iproute2', 'iputils-ping', 'pciutils', 'fio', 'iperf3', 'ndctl', 'daxctl', 'numactl', 'ethtool', 'strace'],
] as const;

export const rootImages = (): string => join(cacheRoot(), 'images');

/** A built image by its name; undefined for what is none, and is a file then. */
export async function findRootImage(name: string): Promise<string | undefined> {
  const path = join(rootImages(), `${name}.qcow2`);
  return !name.includes('/') && existsSync(path) ? path : undefined;
}

export async function listRootImages(): Promise<{ name: string; path: string; bytes: number }[]> {
  const names = (await readdir(rootImages()).catch(() => [])).filter((name) => /^[^.].*\.qcow2$/.test(name));
  return Promise.all(
    names.map(async (name) => {
      const path = join(rootImages(), name);
      return { name: basename(name, '.qcow2'), path, bytes: (await stat(path)).blocks * 512 };
    }),
  );
}

export interface RootProgress {
  readonly text: string;
  /** 0 to 1, when it can be told. */
  readonly fraction?: number;
}

/** What the guest that installs needs: the packages, the kernel's modules and what to do, as a disk. */
export interface Parcel {
  /** A tar archive, to be given as a disk. */
  readonly path: string;
  readonly packages: number;
}

/**
 * Downloads packages with all that they need, and puts them into one archive. No root needed.
 * @throws NemuError PACKAGE_UNKNOWN, PACKAGE_DOWNLOAD.
 */
export async function packParcel(
  packages: readonly string[],
  guest: Guest,
  folder: string,
  onProgress: (progress: RootProgress) => void,
): Promise<Parcel> {
  const debs = join(cacheRoot(), 'debs');
  await mkdir(join(debs, 'partial'), { recursive: true });
  const status = join(folder, 'status');
  await writeFile(status, '');
  const arch = debianArch(hostArch());
  let names: Downloads;
  try {
    names = await download(systemApt(arch), packages, debs, status, onProgress);
  } catch {
    // The machine's own lists may be old, or not there at all.
    onProgress({ text: 'updating the package lists' });
    names = await download(await privateApt(arch, true), packages, debs, status, onProgress);
  }
  onProgress({ text: `packing ${names.all.length} packages` });
  const contents = join(folder, 'parcel');
  await mkdir(contents);
  await writeFile(join(contents, 'install.sh'), await readAsset('install_debian.sh'), { mode: 0o755 });
  await writeFile(join(contents, 'sources.list'), await sourcesList());
  await writeFile(join(contents, 'essential'), names.essential.map((name) => `${name}\n`).join(''));
  const path = join(folder, 'parcel.tar');
  // A transformation is for all of a call; modules stay below the name of their kernel.
  const tar = (mode: string, from: string, prefix: string, what: readonly string[]) =>
    commandOutput('tar', [
      ...[mode, '-f', path, '--owner=0', '--group=0', '-C', from],
      ...(prefix ? [`--transform=s,^,${prefix}/,`] : []),
      ...what,
    ]);
  await tar('-c', contents, '', ['install.sh', 'sources.list', 'essential']);
  await tar('-r', debs, 'debs', names.all);
  await tar('-r', join(guest.modules, '..'), 'modules', [guest.name]);
  return { path, packages: names.all.length };
}

/** File names of packages. */
interface Downloads {
  readonly all: readonly string[];
  /** What dpkg and the scripts of other packages run on, with all that it needs itself. */
  readonly essential: readonly string[];
}

async function download(
  apt: Apt,
  packages: readonly string[],
  folder: string,
  status: string,
  onProgress: (progress: RootProgress) => void,
): Promise<Downloads> {
  const args = [
    ...apt.options,
    ...['-q', '-y', '--no-install-recommends', '-o', `Dir::State::status=${status}`],
    ...['-o', `Dir::Cache::archives=${folder}`, '-o', 'Debug::NoLocking=1', '-o', 'APT::Sandbox::User='],
  ];
  const needed = async (wanted: readonly string[]): Promise<string[]> => {
    const list = await runCommand('apt-get', [...args, '--simulate', 'install', ...wanted]);
    // "Inst name (version source [architecture])"; the archive's name has no colon (apt's own file names).
    const files = [...list.stdout.toString('utf8').matchAll(/^Inst (\S+) \((\S+) .*\[(\w+)\]\)/gm)].map(
      ([, name, version, kind]) => `${name}_${version.replaceAll(':', '%3a')}_${kind}.deb`,
    );
    if (list.status === 0 && files.length > 0) return files;
    const reason = list.stderr.trim().split('\n').slice(-3).join(' ');
    throw new NemuError('PACKAGE_UNKNOWN', `APT cannot say what these packages need: ${reason}`, {
      hint: 'Check the names, the network and /etc/apt/sources.list, then try again.',
    });
  };
  const wanted = ['?essential', ...packages];
  const names = await needed(wanted);
  const essential = await needed(['?essential', 'base-passwd', 'mawk', 'debconf']);
  const result = await runCommand(
    'apt-get',
    [...args, '-o', 'APT::Status-Fd=1', '--download-only', 'install', ...wanted],
    {
      onLine(line) {
        const percent = /^dlstatus:\d+:([\d.]+):/.exec(line)?.[1];
        if (percent) onProgress({ text: `fetching ${names.length} packages`, fraction: Number(percent) / 100 });
      },
    },
  );
  const missing = names.find((name) => !existsSync(join(folder, name)));
  if (result.status !== 0 || missing) {
    throw new NemuError(
      'PACKAGE_DOWNLOAD',
      `The packages could not be downloaded: ${missing ?? result.stderr.trim().split('\n').slice(-3).join(' ')}`,
      { hint: 'Check the network and /etc/apt/sources.list, then try again: what is there is not fetched again.' },
    );
  }
  return { all: names, essential: essential.filter((name) => names.includes(name)) };
}

/** The machine's own sources serve the guest as well; other hosts' guests get Debian's. */
async function sourcesList(): Promise<string> {
  const { stdout } = await runCommand('sh', ['-c', '. /etc/os-release; echo "$VERSION_CODENAME"']);
  const release = stdout.toString('utf8').trim() || 'bookworm';
  return ['', '-updates']
    .map((suite) => `deb http://deb.debian.org/debian ${release}${suite} main\n`)
    .concat(`deb http://deb.debian.org/debian-security ${release}-security main\n`)
    .join('');
}

/** Puts a finished image where `findRootImage` finds it. @returns its path. */
export async function publishRootImage(name: string, from: string): Promise<string> {
  await mkdir(rootImages(), { recursive: true });
  const path = join(rootImages(), `${name}.qcow2`);
  await rename(from, path);
  return path;
}

/** @throws NemuError GUEST_UNKNOWN. */
export async function removeRootImage(name: string): Promise<void> {
  const path = await findRootImage(name);
  if (!path)
    throw new NemuError('GUEST_UNKNOWN', `There is no image "${name}".`, { hint: 'nemu guest list shows them.' });
  await rm(path);
}
