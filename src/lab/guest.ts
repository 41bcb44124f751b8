import { constants } from 'node:fs';
import { access, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { arch as hostMachine, release as hostRelease } from 'node:os';
import { join } from 'node:path';
import { NemuError } from '../client/errors.ts';
import { hasApt } from './apt.ts';
import { cacheRoot, publishFolder } from './cache.ts';
import { downloadKernel } from './guest_debian.ts';
import { compareReleases, DEFAULT_SERIES, type Flavour, flavourOf, isRelease, seriesOf } from './release.ts';

/** Linux' name of an architecture, as `uname -m` prints it. */
export type GuestArch = 'x86_64' | 'aarch64';

/** A kernel that can be booted as a guest, with its modules. */
export interface Guest {
  /** Kernel release as `uname -r` prints it in the guest, for example `6.12.117+deb12-cloud-amd64`. */
  readonly name: string;
  readonly arch: GuestArch;
  readonly flavour: Flavour;
  /** `debian`: fetched into the cache; `host`: the kernel that this machine itself runs. */
  readonly source: 'debian' | 'host';
  /** Path of the kernel image. */
  readonly kernel: string;
  /** Path of the folder that has `modules.builtin` and `kernel/`. */
  readonly modules: string;
  /** Path of the kernel's `.config`, when known. */
  readonly config: string | undefined;
  readonly systemMap: string | undefined;
}

/** What to fetch. Without `series` the newest 6.12, and on a Debian that has none its default kernel. */
export interface GuestRequest {
  flavour?: Flavour;
  /** `6.12`, `6.1`, or an exact release such as `6.12.117+deb12-cloud-amd64`. */
  series?: string;
  arch?: GuestArch;
}

/** Where a fetch is. `bytes` and `total` count the download; the other steps have none. */
export interface FetchProgress {
  step: 'lists' | 'download' | 'unpack';
  /** The package or kernel that is worked on. */
  name: string;
  bytes: number;
  total: number;
}

const GUEST_FILE = 'guest.json';

/** Architecture of this machine. */
export function hostArch(): GuestArch {
  return hostMachine() === 'arm64' ? 'aarch64' : 'x86_64';
}

function guestsFolder(): string {
  return join(cacheRoot(), 'guests');
}

/**
 * Fetches a Debian kernel into the cache (no root needed), or gives it at once when it is there. A machine
 * without APT gets its own kernel: `source` is then `host`.
 * @throws NemuError GUEST_OFFLINE, GUEST_UNKNOWN, PACKAGE_DOWNLOAD, GUEST_HOST_KERNEL
 */
export async function fetchGuest(
  request: GuestRequest = {},
  onProgress: (progress: FetchProgress) => void = () => {},
): Promise<Guest> {
  const arch = request.arch ?? hostArch();
  if (!hasApt()) {
    if (arch !== hostArch()) {
      throw new NemuError('GUEST_UNKNOWN', `This machine has no APT, so that a kernel for ${arch} cannot be fetched.`, {
        hint: 'Give the path of a kernel image instead.',
      });
    }
    return hostGuest();
  }
  const exact = request.series && isRelease(request.series) ? await cachedGuest(request.series) : undefined;
  if (exact) return exact;
  return downloadKernel({ ...request, flavour: request.flavour ?? 'cloud', arch }, onProgress, publishGuest);
}

/** Puts a kernel that was unpacked by `unpack` into the cache; an unpacked one holds `boot/` and `lib/modules/`. */
async function publishGuest(name: string, arch: GuestArch, unpack: (folder: string) => Promise<void>): Promise<Guest> {
  const existing = await cachedGuest(name);
  if (existing) return existing;
  await publishFolder(join(guestsFolder(), name), async (folder) => {
    const unpacked = join(folder, 'package');
    await mkdir(unpacked);
    await unpack(unpacked);
    await rename(join(unpacked, 'boot', `vmlinuz-${name}`), join(folder, 'vmlinuz'));
    for (const file of ['config', 'System.map']) {
      await rename(join(unpacked, 'boot', `${file}-${name}`), join(folder, file)).catch(ignoreMissing);
    }
    const modules = join(folder, 'lib', 'modules');
    await mkdir(join(folder, 'lib'));
    // Debian 13 and later ship the modules below /usr/lib.
    await rename(join(unpacked, 'lib', 'modules'), modules).catch(ignoreMissing);
    await rename(join(unpacked, 'usr', 'lib', 'modules'), modules).catch(ignoreMissing);
    await access(join(modules, name));
    await rm(unpacked, { recursive: true });
    await writeFile(join(folder, GUEST_FILE), `${JSON.stringify({ name, arch, flavour: flavourOf(name) })}\n`);
  });
  const guest = await cachedGuest(name);
  if (!guest) throw new NemuError('GUEST_UNKNOWN', `The kernel ${name} was unpacked, but is not in ${guestsFolder()}.`);
  return guest;
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}

async function cachedGuest(name: string): Promise<Guest | undefined> {
  const folder = join(guestsFolder(), name);
  let record: { name?: unknown; arch?: unknown; flavour?: unknown };
  try {
    record = JSON.parse(await readFile(join(folder, GUEST_FILE), 'utf8'));
  } catch {
    return undefined;
  }
  if (record.name !== name || (record.arch !== 'x86_64' && record.arch !== 'aarch64')) return undefined;
  return {
    name,
    arch: record.arch,
    flavour: record.flavour === 'full' ? 'full' : 'cloud',
    source: 'debian',
    kernel: join(folder, 'vmlinuz'),
    modules: join(folder, 'lib', 'modules', name),
    config: join(folder, 'config'),
    systemMap: join(folder, 'System.map'),
  };
}

/** All kernels in the cache, newest first. */
export async function listGuests(): Promise<Guest[]> {
  const names = await readdir(guestsFolder()).catch(() => []);
  const guests = await Promise.all(names.filter(isRelease).map(cachedGuest));
  return guests.filter((guest) => guest !== undefined).sort((a, b) => compareReleases(b.name, a.name));
}

/**
 * Removes a kernel from the cache.
 * @throws NemuError GUEST_UNKNOWN
 */
export async function removeGuest(name: string): Promise<void> {
  const guest = isRelease(name) ? await cachedGuest(name) : undefined;
  if (!guest) throw await unknownGuest(name);
  await rm(join(guestsFolder(), name), { recursive: true, force: true });
}

/**
 * A kernel of the cache by a selector: an exact release, a series (`6.1`), a flavour (`full`), both
 * (`6.1-full`), or `host` for this machine's own. Without one: the newest 6.12 for the cloud, else the
 * newest for the cloud, else the newest; and on a machine without APT its own.
 * @throws NemuError GUEST_UNKNOWN
 */
export async function findGuest(selector?: string, arch: GuestArch = hostArch()): Promise<Guest> {
  if (selector === 'host') return hostGuest();
  const guests = (await listGuests()).filter((guest) => guest.arch === arch);
  const found =
    selector === undefined
      ? (guests.find((guest) => guest.flavour === 'cloud' && seriesOf(guest.name) === DEFAULT_SERIES) ??
        guests.find((guest) => guest.flavour === 'cloud') ??
        guests[0])
      : (guests.find((guest) => guest.name === selector) ?? guests.find((guest) => matches(guest, selector)));
  if (found) return found;
  if (selector === undefined && !hasApt() && arch === hostArch()) return hostGuest();
  throw await unknownGuest(selector ?? `the default kernel for ${arch}`);
}

function matches(guest: Guest, selector: string): boolean {
  const parts = /^(?:(\d+\.\d+))?-?(cloud|full)?$/.exec(selector);
  if (!parts || selector === '') return false;
  const [, series, flavour] = parts;
  // A series alone means the small kernel, as everywhere.
  return (series === undefined || seriesOf(guest.name) === series) && guest.flavour === (flavour ?? 'cloud');
}

async function unknownGuest(selector: string): Promise<NemuError> {
  const names = (await listGuests()).map((guest) => guest.name);
  const have = names.length > 0 ? `There are: ${names.join(', ')}.` : 'There is none at all.';
  return new NemuError('GUEST_UNKNOWN', `No guest kernel for "${selector}" is in ${guestsFolder()}. ${have}`, {
    hint: 'Run "nemu guest fetch" to get one.',
  });
}

/**
 * The kernel that this machine runs.
 * @throws NemuError GUEST_HOST_KERNEL when its image or modules are missing or may not be read.
 */
export async function hostGuest(): Promise<Guest> {
  const name = hostRelease();
  const modules = join('/lib/modules', name);
  const images = [`/boot/vmlinuz-${name}`, join(modules, 'vmlinuz'), join(modules, 'vmlinux'), `/boot/Image-${name}`];
  let denied: string | undefined;
  for (const kernel of images) {
    try {
      await access(kernel, constants.R_OK);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EACCES') denied = kernel;
      continue;
    }
    if (!(await isFolder(modules))) {
      throw new NemuError(
        'GUEST_HOST_KERNEL',
        `The running kernel's modules are missing: there is no folder ${modules}.`,
        {
          hint: 'The kernel was probably updated: reboot this machine, or give the path of a kernel image.',
        },
      );
    }
    return {
      name,
      arch: hostArch(),
      flavour: 'full',
      source: 'host',
      kernel,
      modules,
      config: await firstReadable([`/boot/config-${name}`, join(modules, 'config')]),
      systemMap: await firstReadable([`/boot/System.map-${name}`, join(modules, 'System.map')]),
    };
  }
  if (denied) {
    throw new NemuError('GUEST_HOST_KERNEL', `The running kernel's image ${denied} may only be read by root.`, {
      hint: `Allow it with: sudo chmod +r ${denied}`,
    });
  }
  throw new NemuError(
    'GUEST_HOST_KERNEL',
    `No image of the running kernel ${name} was found: not ${images.join(', not ')}.`,
    {
      hint: 'Give the path of a kernel image.',
    },
  );
}

async function firstReadable(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    if (
      await access(path, constants.R_OK).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  return undefined;
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );
}
