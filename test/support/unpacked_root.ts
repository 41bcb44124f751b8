/** A root file system of Debian's packages, unpacked on the host: programs that a test runs in a guest as they are. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Apt, downloadPackage, privateApt } from '../../src/lab/apt.ts';

const FOLDERS = ['bin', 'sbin', 'lib', 'lib64'];
const EMPTY = ['dev', 'proc', 'sys', 'run', 'tmp', 'root', 'etc', 'mnt'];
const UNWANTED = ['doc', 'man', 'locale', 'i18n'].map((name) => `--exclude=./usr/share/${name}`);
const BYTES = 512 << 20;

/**
 * Makes an image with these packages and what they depend on. Nothing of them is configured and there is no init: it is
 * for `nemu run --root IMAGE -- COMMAND`.
 * @param folder an empty one, for all that is needed on the way.
 * @param links what packages would make when they are configured, from the root: `usr/bin/awk` to `mawk`.
 * @returns path of the image.
 */
export async function unpackRoot(
  folder: string,
  packages: readonly string[],
  links: Readonly<Record<string, string>>,
): Promise<string> {
  const [debs, root, image] = ['debs', 'root', 'root.img'].map((name) => join(folder, name));
  mkdirSync(join(debs, 'partial'), { recursive: true });
  const { options } = await privateApt('amd64', false);
  const download = ['-qq', '-y', '--no-install-recommends', '-d', '-o', `Dir::Cache::archives=${debs}`, 'install'];
  execFileSync('apt-get', [...options, ...download, ...packages], { stdio: ['ignore', 'ignore', 'inherit'] });
  for (const name of FOLDERS) {
    mkdirSync(join(root, 'usr', name), { recursive: true });
    symlinkSync(`usr/${name}`, join(root, name));
  }
  for (const name of EMPTY) mkdirSync(join(root, name));
  const unpack = 'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink "$3" "$4" "$5" "$6"';
  for (const name of readdirSync(debs).filter((each) => each.endsWith('.deb'))) {
    execFileSync('sh', ['-c', unpack, 'sh', join(debs, name), root, ...UNWANTED]);
  }
  for (const [path, target] of Object.entries(links)) symlinkSync(target, join(root, path));
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  writeFileSync(image, '');
  truncateSync(image, BYTES);
  execFileSync('mke2fs', ['-q', '-t', 'ext4', '-d', root, image]);
  return image;
}

/** @returns where the kernel's own tests are unpacked, as Debian has its source. @param files below tools/testing/selftests */
export async function unpackSelftests(folder: string, files: readonly string[]): Promise<string> {
  const name = 'linux-source-6.1';
  const apt: Apt = await privateApt('amd64', false);
  const deb = await downloadPackage(apt, name, folder, () => {});
  const members = files.map((file) => `${name}/tools/testing/selftests/${file}`);
  const unpack = 'dpkg-deb --fsys-tarfile "$1" | tar -x -O "$2" | xz -dc | tar -x -C "$3" "$4" "$5"';
  const source = `./usr/src/${name}.tar.xz`;
  execFileSync('sh', ['-c', unpack, 'sh', deb, source, folder, ...members]);
  return join(folder, name, 'tools/testing/selftests');
}
