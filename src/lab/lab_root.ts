/** The initramfs of a lab: Node with what it needs, koffi, kernel modules, our init and the loader. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { NemuError } from '../client/errors.ts';
import { readAsset } from './assets.ts';
import { findBusybox } from './busybox.ts';
import { publishFile } from './cache.ts';
import { commandOutput } from './command.ts';
import { type CpioEntry, writeCpio } from './cpio.ts';
import type { Guest } from './guest.ts';
import { baseEntries, moduleEntries } from './initramfs.ts';
import { openModules, resolveModules } from './modules.ts';

/** Loaded before the lab is saved; what a kernel has built in, or has not, is skipped. */
const MODULES = [
  ...[
    'virtio_pci',
    'virtio_console',
    'virtio-rng',
    '9p',
    '9pnet_virtio',
    'overlay',
    'irqbypass',
    'kvm',
    'ccp',
    'kvm-amd',
  ],
  ...['tun', 'vhost_net', 'vhost_vsock', 'virtio_net'],
];

/** User networking's library, where a distribution puts it. A host without it has a lab without it. */
const LIBRARY_FOLDERS = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib64', '/usr/lib'];

/** Path of libslirp, if this host has it. */
export const findSlirp = (): string | undefined =>
  LIBRARY_FOLDERS.map((folder) => `${folder}/libslirp.so.0`).find((path) => existsSync(path));

/** In the lab for tests and for hardware that is plugged later, but not loaded. */
const AVAILABLE_MODULES = [
  ...['vfio', 'vfio_iommu_type1', 'vfio-pci-core', 'vfio-pci', 'mdev', 'vhost_scsi', 'macvtap', 'bridge', 'nvme'],
  ...['virtio_blk', 'virtio_scsi', 'virtio_balloon', 'virtio-iommu', 'e1000e', 'tpm_crb', 'tpm_tis', 'nbd', 'loop'],
];

/** Everything that decides what a lab's initramfs holds; equal identities give equal archives. */
export async function labRootIdentity(guest: Guest): Promise<unknown[]> {
  const koffi = koffiFolder();
  const slirp = findSlirp();
  const files = [
    process.execPath,
    await findBusybox(),
    guest.kernel,
    join(koffi, 'package.json'),
    ...(slirp ? [slirp] : []),
  ];
  const stats = await Promise.all(files.map((file) => stat(file)));
  const assets = await Promise.all([readAsset('lab-init.sh'), readAsset('lab-loader.mjs')]);
  const digest = createHash('sha256');
  for (const asset of assets) digest.update(asset);
  return [
    guest.name,
    process.version,
    files.map((file, index) => [file, stats[index]!.size, stats[index]!.mtimeMs]),
    [MODULES, AVAILABLE_MODULES],
    digest.digest('hex'),
  ];
}

/** Writes the initramfs to `path`. */
export async function buildLabRoot(guest: Guest, path: string): Promise<void> {
  const tree = await openModules(guest.modules);
  const modules = await resolveModules(tree, [], [...MODULES, ...AVAILABLE_MODULES]);
  const koffi = await koffiEntries();
  const native = koffi.find((entry) => entry.path.endsWith('.node'));
  const libraries = new Set(await sharedLibraries(process.execPath));
  if (native) for (const library of await sharedLibraries(native.source)) libraries.add(library);
  const slirp = findSlirp();
  if (slirp) for (const library of [slirp, ...(await sharedLibraries(slirp))]) libraries.add(library);
  const file = async (target: string, source: string, mode = 0o755): Promise<CpioEntry> => ({
    type: 'file',
    path: target,
    mode,
    data: await readFile(source),
  });
  const archive = writeCpio([
    ...(await baseEntries(await findBusybox())),
    ...moduleEntries(guest.name, modules),
    { type: 'file', path: 'init', mode: 0o755, data: await readAsset('lab-init.sh') },
    { type: 'file', path: 'nemu/modules', data: Buffer.from(`${MODULES.join(' ')}\n`) },
    { type: 'file', path: 'nemu/lab-loader.mjs', data: await readAsset('lab-loader.mjs') },
    await file('nemu/node', process.execPath),
    { type: 'link', path: 'bin/node', target: '/nemu/node' },
    ...(await Promise.all([...libraries].map((library) => file(library.slice(1), library)))),
    ...(await Promise.all(koffi.map(({ path: target, source }) => file(target, source, 0o644)))),
  ]);
  await publishFile(path, (target) => writeFile(target, archive));
}

/** Full paths of the libraries and of the interpreter that the dynamic loader takes for a program. */
async function sharedLibraries(program: string): Promise<string[]> {
  const output = (await commandOutput('ldd', [program])).toString('utf8');
  if (output.includes('not found')) {
    throw new NemuError('LAB_LIBRARY', `The program ${program} lacks a library:\n${output.trim()}`);
  }
  // "libm.so.6 => /lib/…/libm.so.6 (0x…)" or "/lib64/ld-linux-x86-64.so.2 (0x…)", see ldd(1).
  return [...output.matchAll(/^\s*(?:\S+ => )?(\/\S+) \(0x/gm)].map((match) => match[1]!);
}

function koffiFolder(): string {
  return dirname(createRequire(import.meta.url).resolve('koffi'));
}

/** koffi's JavaScript and its native part for this machine, as files below /nemu/node_modules. */
async function koffiEntries(): Promise<{ path: string; source: string }[]> {
  const folder = koffiFolder();
  const native = dirname(createRequire(join(folder, 'index.cjs')).resolve(`@koromix/koffi-linux-${process.arch}`));
  const list = async (root: string, target: string, wanted: RegExp) => {
    const entries = await readdir(root, { recursive: true, withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile() && wanted.test(relative(root, join(entry.parentPath, entry.name))))
      .map((entry) => join(entry.parentPath, entry.name))
      .map((source) => ({ path: join(target, relative(root, source)), source }));
  };
  const modules = 'nemu/node_modules';
  return [
    ...(await list(folder, `${modules}/koffi`, /^(package\.json|[^/]*\.c?js|src\/.*\.c?js)$/)),
    ...(await list(
      native,
      `${modules}/@koromix/koffi-linux-${process.arch}`,
      /^(package\.json|index\.js|linux_\w+\/.*\.node)$/,
    )),
  ];
}
