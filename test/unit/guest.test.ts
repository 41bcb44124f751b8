import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hasApt, parseStanza } from '../../src/lab/apt.ts';
import { publishFile, publishFolder } from '../../src/lab/cache.ts';
import { fetchGuest, findGuest, listGuests, removeGuest } from '../../src/lab/guest.ts';
import { dependencies, metaPackages } from '../../src/lab/guest_debian.ts';
import { compareReleases, flavourOf, isRelease, seriesOf } from '../../src/lab/release.ts';

let folder: string;
let savedCache: string | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nemu-test-'));
  savedCache = process.env.XDG_CACHE_HOME;
  process.env.XDG_CACHE_HOME = folder;
});

afterEach(async () => {
  if (savedCache === undefined) delete process.env.XDG_CACHE_HOME;
  else process.env.XDG_CACHE_HOME = savedCache;
  await rm(folder, { recursive: true, force: true });
});

async function putGuest(
  name: string,
  record: object = { name, arch: 'x86_64', flavour: flavourOf(name) },
): Promise<void> {
  const path = join(folder, 'nemu', 'guests', name);
  await mkdir(path, { recursive: true });
  await writeFile(join(path, 'guest.json'), JSON.stringify(record));
}

describe('releases', () => {
  it('tells releases from series and from paths', () => {
    expect(isRelease('6.12.117+deb12-cloud-amd64')).toBe(true);
    expect(isRelease('6.1.0-56-amd64')).toBe(true);
    expect(isRelease('6.12')).toBe(false);
    expect(isRelease('../6.12.1')).toBe(false);
    expect(isRelease('6.12.1/../..')).toBe(false);
    expect(isRelease('cloud')).toBe(false);
  });

  it('knows series, flavour and order', () => {
    expect(seriesOf('6.12.117+deb12-cloud-amd64')).toBe('6.12');
    expect(seriesOf('6.1.0-56-amd64')).toBe('6.1');
    expect(flavourOf('6.12.117+deb12-cloud-amd64')).toBe('cloud');
    expect(flavourOf('6.12.117+deb12-amd64')).toBe('full');
    const sorted = ['6.12.117+deb12-amd64', '6.1.0-56-amd64', '6.12.9+deb12-amd64'].sort(compareReleases);
    expect(sorted).toEqual(['6.1.0-56-amd64', '6.12.9+deb12-amd64', '6.12.117+deb12-amd64']);
  });
});

describe('package fields', () => {
  it('reads the first stanza with continuation lines', () => {
    const fields = parseStanza('Package: a\nDepends: b (= 1:2),\n c | d, e:any\nSize: 12\n\nPackage: z\n');
    expect(fields?.get('Package')).toBe('a');
    expect(fields?.get('Size')).toBe('12');
    expect(dependencies(fields)).toEqual(['b', 'c', 'e']);
    expect(parseStanza('')).toBeUndefined();
  });

  it('names meta packages with the distribution default last', () => {
    expect(metaPackages('cloud', '6.12', 'amd64')).toEqual(['linux-image-6.12-cloud-amd64', 'linux-image-cloud-amd64']);
    expect(metaPackages('full', '6.1', 'arm64')).toEqual(['linux-image-6.1-arm64', 'linux-image-arm64']);
  });
});

describe('the cache', () => {
  it('shows a folder whole or not at all', async () => {
    const target = join(folder, 'x', 'target');
    await expect(
      publishFolder(target, async (path) => {
        await writeFile(join(path, 'half'), '');
        throw new Error('broken off');
      }),
    ).rejects.toThrow('broken off');
    expect(await readdir(join(folder, 'x'))).toEqual([]);
  });

  it('keeps the first of two folders made at once', async () => {
    const target = join(folder, 'target');
    const publish = (text: string) => publishFolder(target, (path) => writeFile(join(path, 'who'), text));
    await Promise.all([publish('one'), publish('two'), publish('three')]);
    expect(['one', 'two', 'three']).toContain(await readFile(join(target, 'who'), 'utf8'));
    expect(await readdir(folder)).toEqual(['target']);
  });

  it('sweeps what a killed process left, and nothing of a living one', async () => {
    // Process ids stop at 4194304 (PID_MAX_LIMIT), so that nobody has this one.
    await mkdir(join(folder, '.tmp-4194999-abcdef'));
    await mkdir(join(folder, '.tmp-1-abcdef'));
    await publishFile(join(folder, 'file'), (path) => writeFile(path, 'text'));
    expect((await readdir(folder)).sort()).toEqual(['.tmp-1-abcdef', 'file']);
  });
});

describe('guests in the cache', () => {
  it('lists the newest first and skips what is not whole', async () => {
    await putGuest('6.1.0-56-cloud-amd64');
    await putGuest('6.12.9+deb12-cloud-amd64');
    await putGuest('6.12.117+deb12-amd64');
    await putGuest('6.13.1-amd64', { name: 'another', arch: 'x86_64' });
    await mkdir(join(folder, 'nemu', 'guests', '6.14.1-amd64'));
    expect((await listGuests()).map((guest) => guest.name)).toEqual([
      '6.12.117+deb12-amd64',
      '6.12.9+deb12-cloud-amd64',
      '6.1.0-56-cloud-amd64',
    ]);
  });

  it('finds by release, series, flavour and both', async () => {
    await putGuest('6.1.0-56-cloud-amd64');
    await putGuest('6.12.9+deb12-cloud-amd64');
    await putGuest('6.12.117+deb12-amd64');
    await putGuest('6.13.2-cloud-amd64');
    const name = async (selector?: string) => (await findGuest(selector, 'x86_64')).name;
    expect(await name()).toBe('6.12.9+deb12-cloud-amd64');
    expect(await name('6.1')).toBe('6.1.0-56-cloud-amd64');
    expect(await name('full')).toBe('6.12.117+deb12-amd64');
    expect(await name('6.12-full')).toBe('6.12.117+deb12-amd64');
    expect(await name('cloud')).toBe('6.13.2-cloud-amd64');
    expect(await name('6.12.117+deb12-amd64')).toBe('6.12.117+deb12-amd64');
    await expect(name('5.10')).rejects.toMatchObject({ code: 'GUEST_UNKNOWN', hint: expect.stringContaining('fetch') });
    await expect(findGuest('6.12', 'aarch64')).rejects.toMatchObject({ code: 'GUEST_UNKNOWN' });
  });

  it('removes one, and never a path', async () => {
    await putGuest('6.12.9+deb12-cloud-amd64');
    await expect(removeGuest('../guests/6.12.9+deb12-cloud-amd64')).rejects.toMatchObject({ code: 'GUEST_UNKNOWN' });
    await removeGuest('6.12.9+deb12-cloud-amd64');
    expect(await listGuests()).toEqual([]);
  });
});

describe.skipIf(!hasApt())('fetching from package lists (needs apt and dpkg)', () => {
  let path: string | undefined;
  beforeEach(() => {
    path = process.env.PATH;
  });
  afterEach(() => {
    process.env.PATH = path;
  });

  /** APT whose own lists have one kernel, and those that it fetches another. */
  async function fakeApt(old: string, current: string): Promise<void> {
    const bin = join(folder, 'bin');
    await mkdir(bin);
    const program = async (name: string, text: string) => {
      await writeFile(join(bin, name), `#!/bin/sh\nset -e\n${text}`);
      await chmod(join(bin, name), 0o755);
    };
    const which = `case "$*" in *Dir::State::lists=*) release=${current} ;; *) release=${old} ;; esac`;
    await program(
      'apt-cache',
      `${which}
for last; do :; done
case "$release-$last" in
  6.12*-linux-image-6.12-cloud-amd64|6.1.*-linux-image-cloud-amd64) echo "Depends: linux-image-$release" ;;
  *-linux-image-$release) echo "Size: 1" ;;
  *) exit 100 ;;
esac`,
    );
    await program(
      'apt-get',
      `${which}
case "$*" in
  *update) for each; do case "$each" in Dir::State::lists=*) : >"\${each#*=}/x_Packages" ;; esac; done ;;
  *)
    mkdir -p package/DEBIAN package/boot package/lib/modules/$release
    printf 'Package: k\\nVersion: 1\\nArchitecture: all\\nMaintainer: n <n@example.org>\\nDescription: k\\n' >package/DEBIAN/control
    echo kernel >package/boot/vmlinuz-$release
    dpkg-deb --build package k.deb >&2
    rm -r package ;;
esac`,
    );
    process.env.PATH = `${bin}:${path}`;
  }

  it('takes the default series, though lists of long ago do not know it', async () => {
    await fakeApt('6.1.0-50-cloud-amd64', '6.12.9+deb12-cloud-amd64');
    expect((await fetchGuest({ arch: 'x86_64' })).name).toBe('6.12.9+deb12-cloud-amd64');
  });

  it("takes the distribution's kernel where there is no default series", async () => {
    await fakeApt('6.1.0-50-cloud-amd64', '6.1.0-56-cloud-amd64');
    expect((await fetchGuest({ arch: 'x86_64' })).name).toBe('6.1.0-56-cloud-amd64');
  });

  it('does not fetch lists for a series that the old ones have', async () => {
    await fakeApt('6.1.0-50-cloud-amd64', '6.1.0-56-cloud-amd64');
    expect((await fetchGuest({ arch: 'x86_64', series: '6.1' })).name).toBe('6.1.0-50-cloud-amd64');
  });
});
