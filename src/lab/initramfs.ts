import { createHash } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NemuError } from '../client/errors.ts';
import { readAsset } from './assets.ts';
import { findBusybox } from './busybox.ts';
import { cacheRoot, dropUnused, publishFile, touch } from './cache.ts';
import { type CpioEntry, writeCpio } from './cpio.ts';
import type { Guest, GuestArch } from './guest.ts';
import { type LoadedModule, modulesAlias, modulesDep, openModules, resolveModules } from './modules.ts';

/** Raise it when the layout of what is built here changes. */
const FORMAT = 2;

/** Archives that are kept besides a new one; each is 2 MB and more. */
const KEPT = 24;

/**
 * Applets that have their link from the start, for programs that are not busybox itself: its shell and its
 * own applets find one another without. Unpacking a link takes the guest half a millisecond under TCG, so
 * that the other 250 are made by init when nobody waits.
 */
const CORE_APPLETS = [
  ...['sh', 'ash', 'mount', 'env', 'test', '[', 'cat', 'cp', 'echo', 'false', 'grep', 'kill', 'ln', 'ls', 'mkdir'],
  ...['modprobe', 'mv', 'poweroff', 'printf', 'rm', 'sed', 'setsid', 'sleep', 'stty', 'true', 'uname'],
];

/** Modules that are in every guest's initramfs as far as its kernel has them, and are loaded late. */
export const DEFAULT_MODULES = ['pvpanic-mmio', 'qemu_fw_cfg', 'button', 'evdev'];

/**
 * Read by the interactive shell. Its process 1 is a script that waits for it and obeys no signal, as busybox
 * would have it without -f.
 */
const SHELL_RC = `unset ENV
exec >&0
alias poweroff='poweroff -f' reboot='reboot -f' halt='halt -f'
`;

export interface InitramfsOptions {
  guest: Guest;
  /** Modules to put in and to load before the shell or the command; they must exist. */
  modules?: readonly string[];
  /** Modules to load when nobody waits, as far as the kernel has them. */
  late?: readonly string[];
  /** Modules to put in only, with their aliases, so that plugged devices and `modprobe` find them. */
  available?: readonly string[];
}

/** What the guest is to do, carried by an archive behind the initramfs. */
export interface GuestTask {
  /** A script for the guest's shell, or a program with its arguments; none gives an interactive shell. */
  command?: string | readonly string[];
  env?: Readonly<Record<string, string>>;
  /** Size of the user's terminal. A command then gets a terminal in place of separate byte streams. */
  terminal?: { rows: number; columns: number };
  /** The block device that the guest's own system is on: a command runs in it, a shell makes way for its init. */
  root?: string;
  /** Addresses of its network cards, in the order of their names; a card without one is left alone. */
  network?: readonly (GuestAddress | undefined)[];
}

/** What DHCP would say, without the time that it takes. */
export interface GuestAddress {
  /** IPv4 address with the length of the network's prefix, as `10.0.2.15/24`. */
  address: string;
  gateway: string;
  nameserver: string;
}

/**
 * Path of the initramfs for a kernel: busybox, our init and the modules with all that they need. It is built
 * once per content and kept in the cache. It is not compressed: unpacking costs the guest more than copying
 * costs the host.
 * @throws NemuError MODULE_UNKNOWN, BUSYBOX_MISSING
 */
export async function buildInitramfs(options: InitramfsOptions): Promise<string> {
  const { guest, modules = [], available = [] } = options;
  const late = [...DEFAULT_MODULES, ...(options.late ?? [])];
  const { mtimeMs } = await stat(guest.modules);
  const identity = [guest.modules, mtimeMs, modules, available, late];
  return cachedArchive(guest.name, guest.arch, identity, async () => {
    const tree = await openModules(guest.modules);
    const lines = (names: readonly string[]) => Buffer.from(`${names.join(' ')}\n`);
    return [
      ...moduleEntries(guest.name, await resolveModules(tree, modules, [...available, ...late])),
      { type: 'file', path: 'nemu/modules', data: lines(modules) },
      { type: 'file', path: 'nemu/modules.late', data: lines(late) },
    ];
  });
}

/**
 * Path of an initramfs with busybox and our init alone, for a kernel whose modules nobody knows.
 * @throws NemuError BUSYBOX_MISSING
 */
export async function busyboxInitramfs(arch: GuestArch): Promise<string> {
  return cachedArchive(`busybox-${arch}`, arch, [], async () => []);
}

async function cachedArchive(
  name: string,
  arch: GuestArch,
  identity: unknown,
  further: () => Promise<CpioEntry[]>,
): Promise<string> {
  const busybox = await findBusybox(arch);
  const [init, agent, hotplug, { size, mtimeMs }] = await Promise.all([
    readAsset('init.sh'),
    readAsset('agent.sh'),
    readAsset('hotplug.sh'),
    stat(busybox),
  ]);
  const scripts = [init, agent, hotplug].map((script) => script.toString('latin1'));
  const key = [FORMAT, SHELL_RC, identity, busybox, size, mtimeMs, ...scripts];
  const hash = createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 16);
  const folder = join(cacheRoot(), 'initramfs');
  const path = join(folder, `${name}-${hash}.cpio`);
  if (await touch(path)) return path;

  await dropUnused(folder, /^(\d|busybox-).*\.cpio$/, KEPT);
  const archive = writeCpio([
    ...(await baseEntries(busybox)),
    { type: 'file', path: 'init', mode: 0o755, data: init },
    { type: 'file', path: 'nemu/agent', data: agent },
    { type: 'file', path: 'nemu/hotplug', mode: 0o755, data: hotplug },
    { type: 'file', path: 'nemu/shellrc', data: Buffer.from(SHELL_RC) },
    ...(await further()),
  ]);
  await publishFile(path, (target) => writeFile(target, archive));
  return path;
}

/** Folders, /etc and busybox with its applets. */
export async function baseEntries(busybox: string): Promise<CpioEntry[]> {
  const fstab = [
    'proc /proc proc defaults',
    'sysfs /sys sysfs defaults',
    'devtmpfs /dev devtmpfs defaults',
    'tmpfs /run tmpfs mode=0755',
    'tmpfs /tmp tmpfs mode=1777',
  ];
  const text = (path: string, lines: string[]): CpioEntry => ({
    type: 'file',
    path,
    data: Buffer.from(`${lines.join('\n')}\n`),
  });
  return [
    ...['dev', 'proc', 'sys', 'run', 'tmp', 'root', 'mnt', 'sbin', 'usr/bin', 'usr/sbin'].map(
      (path): CpioEntry => ({ type: 'folder', path }),
    ),
    { type: 'char', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
    { type: 'char', path: 'dev/null', mode: 0o666, major: 1, minor: 3 },
    text('etc/fstab', fstab),
    text('etc/passwd', ['root:x:0:0:root:/root:/bin/sh']),
    text('etc/group', ['root:x:0:']),
    text('etc/hosts', ['127.0.0.1 localhost nemu', '::1 localhost']),
    { type: 'file', path: 'bin/busybox', mode: 0o755, data: await readFile(busybox) },
    ...CORE_APPLETS.map((name): CpioEntry => ({ type: 'link', path: `bin/${name}`, target: 'busybox' })),
    // The kernel asks for modules by this path (CONFIG_MODPROBE_PATH).
    { type: 'link', path: 'sbin/modprobe', target: '../bin/busybox' },
  ];
}

/** The modules below `lib/modules/<release>`, with the indexes that modprobe needs. */
export function moduleEntries(release: string, modules: readonly LoadedModule[]): CpioEntry[] {
  const folder = `lib/modules/${release}`;
  return [
    { type: 'folder', path: folder },
    ...modules.map(({ path, data }): CpioEntry => ({ type: 'file', path: `${folder}/${path}`, data })),
    { type: 'file', path: `${folder}/modules.dep`, data: Buffer.from(modulesDep(modules)) },
    { type: 'file', path: `${folder}/modules.alias`, data: Buffer.from(modulesAlias(modules)) },
  ];
}

/**
 * A small archive to put behind an initramfs in memory: the kernel unpacks one after the other, and files
 * of the later one win. Keys are paths without a leading slash.
 */
export function overlayArchive(files: Readonly<Record<string, string | Uint8Array>>): Buffer {
  return writeCpio(
    Object.entries(files).map(([path, content]) => ({
      type: 'file',
      path,
      mode: 0o600,
      data: typeof content === 'string' ? Buffer.from(content) : content,
    })),
  );
}

/**
 * An initramfs with an overlay behind it. Each archive must start at a multiple of 4 bytes; the kernel skips
 * the zero bytes between.
 */
export function concatenateArchives(archives: readonly Uint8Array[]): Buffer {
  return Buffer.concat(archives.flatMap((archive) => [archive, Buffer.alloc(-archive.length & 3)]));
}

/**
 * The overlay that tells our init what to do; `init.sh` has the contract.
 * @throws NemuError GUEST_ENV for a name that a shell cannot export, or a value with a NUL byte.
 */
export function taskOverlay(task: GuestTask): Buffer {
  const files: Record<string, string> = { 'nemu/mode': task.command === undefined ? 'shell\n' : 'command\n' };
  const { command, env, terminal } = task;
  if (command !== undefined) {
    files['nemu/command'] = typeof command === 'string' ? `${command}\n` : `exec ${command.map(quote).join(' ')}\n`;
  }
  if (env && Object.keys(env).length > 0) {
    files['nemu/env'] = Object.entries(env)
      .map(([name, value]) => {
        if (!/^[A-Za-z_]\w*$/.test(name)) {
          throw new NemuError('GUEST_ENV', `"${name}" cannot be the name of an environment variable in the guest.`, {
            hint: 'Names are letters, digits and underscores, and do not start with a digit.',
          });
        }
        return `export ${name}=${quote(value)}\n`;
      })
      .join('');
  }
  if (terminal) files['nemu/tty'] = `${terminalSize(terminal.rows)} ${terminalSize(terminal.columns)}\n`;
  const cards = (task.network ?? []).flatMap((card, index) =>
    card ? [`eth${index} ${card.address} ${card.gateway} ${card.nameserver}\n`] : [],
  );
  if (task.root) files['nemu/root'] = `${task.root}\n`;
  if (cards.length > 0) files['nemu/net'] = cards.join('');
  return overlayArchive(files);
}

function terminalSize(value: number): number {
  return Number.isInteger(value) && value > 0 && value < 0x10000 ? value : 24;
}

/** One word for a POSIX shell (Shell Command Language, 2.2.2 Single-Quotes). */
export function quote(word: string): string {
  if (word.includes('\0')) {
    throw new NemuError(
      'GUEST_ENV',
      `The word ${JSON.stringify(word)} has a NUL byte, which no command line can carry.`,
    );
  }
  return `'${word.replaceAll("'", "'\\''")}'`;
}
