import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NemuError } from '../client/errors.ts';
import {
  type Apt,
  type DebianArch,
  downloadPackage,
  type PackageFields,
  packageNames,
  privateApt,
  showPackage,
  systemApt,
  unpackPackage,
} from './apt.ts';
import type { FetchProgress, Guest, GuestArch, GuestRequest } from './guest.ts';
import { compareReleases, DEFAULT_SERIES, type Flavour, flavourOf, isRelease, seriesOf } from './release.ts';

type Request = GuestRequest & { flavour: Flavour; arch: GuestArch };
type OnProgress = (progress: FetchProgress) => void;
type Publish = (name: string, arch: GuestArch, unpack: (folder: string) => Promise<void>) => Promise<Guest>;

const PREFIX = 'linux-image-';

/** Debian's name of a Linux architecture. */
export function debianArch(arch: GuestArch): DebianArch {
  return arch === 'aarch64' ? 'arm64' : 'amd64';
}

/**
 * Finds a Debian kernel for the request, downloads it and hands it to `publish`. The machine's own package
 * lists come first; when they do not know the kernel, or know one that the mirror has replaced since, or are
 * of a time before the default series, private lists are fetched.
 */
export async function downloadKernel(request: Request, onProgress: OnProgress, publish: Publish): Promise<Guest> {
  const arch = debianArch(request.arch);
  const foreign = arch !== debianArch(process.arch === 'arm64' ? 'aarch64' : 'x86_64');
  if (!foreign) {
    const apt = systemApt(arch);
    const release = await findRelease(apt, request);
    if (release && (request.series !== undefined || seriesOf(release) === DEFAULT_SERIES)) {
      try {
        return await publishRelease(apt, release, request.arch, onProgress, publish);
      } catch (error) {
        if (!(error instanceof NemuError) || error.code !== 'PACKAGE_DOWNLOAD') throw error;
      }
    }
  }
  onProgress({ step: 'lists', name: 'package lists', bytes: 0, total: 0 });
  let apt: Apt;
  try {
    apt = await privateApt(arch, true);
  } catch (cause) {
    throw new NemuError('GUEST_OFFLINE', `The guest kernel could not be fetched. ${(cause as Error).message}`, {
      hint: 'Connect this machine to the network and run "nemu guest fetch", or give the path of a kernel image.',
      cause,
    });
  }
  const release = await findRelease(apt, request);
  if (!release) throw await noSuchKernel(apt, request);
  return publishRelease(apt, release, request.arch, onProgress, publish);
}

function publishRelease(
  apt: Apt,
  release: string,
  arch: GuestArch,
  onProgress: OnProgress,
  publish: Publish,
): Promise<Guest> {
  return publish(release, arch, async (folder) => {
    const downloads = await mkdtemp(join(tmpdir(), 'nemu-guest-'));
    try {
      for (const name of await kernelPackages(apt, release)) {
        const deb = await downloadPackage(apt, name, downloads, (bytes, total) =>
          onProgress({ step: 'download', name, bytes, total }),
        );
        onProgress({ step: 'unpack', name, bytes: 0, total: 0 });
        await unpackPackage(deb, folder);
      }
    } finally {
      await rm(downloads, { recursive: true, force: true });
    }
  });
}

/** Later Debian releases split the image: its files are then in packages that the image depends on. */
async function kernelPackages(apt: Apt, release: string): Promise<string[]> {
  const fields = await showPackage(apt, PREFIX + release);
  const parts = dependencies(fields).filter((name) => /^linux-(modules|binary)-/.test(name));
  return [PREFIX + release, ...parts];
}

/** The release that serves a request, or undefined when these lists have none. */
async function findRelease(apt: Apt, request: Request): Promise<string | undefined> {
  const { series, flavour } = request;
  if (series !== undefined && isRelease(series)) {
    if (await showPackage(apt, PREFIX + series)) return series;
    // "6.12.117" stands for the release of that version in the wanted flavour.
    const names = (await packageNames(apt, PREFIX + series)).map((name) => name.slice(PREFIX.length));
    return newest(names.filter((name) => isOrdinary(name, apt.arch) && flavourOf(name) === flavour));
  }
  for (const meta of metaPackages(flavour, series ?? DEFAULT_SERIES, apt.arch)) {
    const names = dependencies(await showPackage(apt, meta))
      .filter((name) => name.startsWith(PREFIX))
      .map((name) => name.slice(PREFIX.length));
    const release = names.find(isRelease);
    if (release && (series === undefined || seriesOf(release) === series)) return release;
  }
  return undefined;
}

/** Meta packages in the order to try: the one of the series, then the distribution's default. */
export function metaPackages(flavour: Flavour, series: string, arch: DebianArch): string[] {
  const suffix = flavour === 'cloud' ? `cloud-${arch}` : arch;
  return [`${PREFIX}${series}-${suffix}`, `${PREFIX}${suffix}`];
}

/** Package names in `Depends` (Debian Policy 7.1), versions and alternatives dropped. */
export function dependencies(fields: PackageFields | undefined): string[] {
  return (fields?.get('Depends') ?? '')
    .split(',')
    .map(
      (part) =>
        part
          .split('|')[0]!
          .trim()
          .split(/[\s(:]/)[0]!,
    )
    .filter(Boolean);
}

function isOrdinary(release: string, arch: DebianArch): boolean {
  return isRelease(release) && release.endsWith(`-${arch}`) && !/-(rt|16k|unsigned|dbg)\b/.test(release);
}

function newest(names: readonly string[]): string | undefined {
  return [...names].sort((a, b) => compareReleases(b, a))[0];
}

async function noSuchKernel(apt: Apt, request: Request): Promise<NemuError> {
  const names = await packageNames(apt, PREFIX);
  const releases = names.map((name) => name.slice(PREFIX.length)).filter((name) => isOrdinary(name, apt.arch));
  const newestFirst = releases.sort((a, b) => compareReleases(b, a)).slice(0, 8);
  const wanted = `${request.series ?? DEFAULT_SERIES} (${request.flavour}, ${request.arch})`;
  return new NemuError('GUEST_UNKNOWN', `The package sources of this machine have no kernel ${wanted}.`, {
    hint:
      newestFirst.length > 0
        ? `They have: ${newestFirst.join(', ')}.`
        : 'They have no Debian kernel at all: check /etc/apt/sources.list, or give the path of a kernel image.',
  });
}
