import { readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { gunzip, zstdDecompress } from 'node:zlib';
import { NemuError } from '../client/errors.ts';
import { findBusybox } from './busybox.ts';
import { commandOutput } from './command.ts';
import { type ModuleInfo, readModuleInfo } from './modinfo.ts';

/** The modules of one kernel: `/lib/modules/<release>` or a copy of it. */
export interface ModuleTree {
  readonly folder: string;
  /** Path below `folder` by module name. */
  readonly files: ReadonlyMap<string, string>;
  /** Names of what is compiled into the kernel. */
  readonly builtin: ReadonlySet<string>;
}

/** A module with its bytes, not compressed. */
export interface LoadedModule extends ModuleInfo {
  name: string;
  /** Path below the tree's folder, without the compression's suffix. */
  path: string;
  data: Uint8Array;
}

const MODULE_FILE = /\.ko(\.gz|\.xz|\.zst)?$/;

/** The kernel treats `-` and `_` in module names as the same. */
export function moduleName(text: string): string {
  return text.replaceAll('-', '_');
}

/** Reads which modules there are. Needs no `modules.dep`, which Debian's packages do not have. */
export async function openModules(folder: string): Promise<ModuleTree> {
  const files = new Map<string, string>();
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !MODULE_FILE.test(entry.name)) continue;
    const path = relative(folder, join(entry.parentPath, entry.name));
    files.set(moduleName(entry.name.replace(MODULE_FILE, '')), path);
  }
  const list = await readFile(join(folder, 'modules.builtin'), 'utf8').catch(() => '');
  const builtin = list.split('\n').filter(Boolean);
  const nameOf = (path: string) => moduleName(path.slice(path.lastIndexOf('/') + 1).replace(MODULE_FILE, ''));
  return { folder, files, builtin: new Set(builtin.map(nameOf)) };
}

/**
 * The modules asked for and all that they need, in an order to load them in. What is built in is left out.
 * @param names needed modules
 * @param wished modules that may be missing
 * @throws NemuError MODULE_UNKNOWN, MODULE_FORMAT
 */
export async function resolveModules(
  tree: ModuleTree,
  names: readonly string[],
  wished: readonly string[] = [],
): Promise<LoadedModule[]> {
  const order: LoadedModule[] = [];
  const seen = new Set<string>();
  const has = (name: string) => tree.files.has(moduleName(name));
  const visit = async (text: string, neededBy: string): Promise<void> => {
    const name = moduleName(text);
    if (seen.has(name) || tree.builtin.has(name)) return;
    seen.add(name);
    const module = await readModule(tree, name, neededBy);
    for (const other of [...module.depends, ...module.softPre.filter(has)]) await visit(other, name);
    order.push(module);
    for (const other of module.softPost.filter(has)) await visit(other, name);
  };
  for (const name of names) await visit(name, 'you');
  for (const name of wished.filter(has)) await visit(name, 'nobody');
  return order;
}

async function readModule(tree: ModuleTree, name: string, neededBy: string): Promise<LoadedModule> {
  const file = tree.files.get(name);
  if (!file) {
    const by = neededBy === 'you' ? '' : `, which ${neededBy} needs`;
    throw new NemuError('MODULE_UNKNOWN', `The kernel has no module "${name}"${by}: none is below ${tree.folder}.`, {
      hint: 'The cloud kernel has fewer modules than the full one: "nemu guest fetch full" gets that.',
    });
  }
  const data = await decompress(join(tree.folder, file));
  return { name, path: file.replace(/(\.ko)\.\w+$/, '$1'), data, ...readModuleInfo(name, data) };
}

async function decompress(path: string): Promise<Uint8Array> {
  const bytes = await readFile(path);
  if (path.endsWith('.gz')) return promisify(gunzip)(bytes);
  if (path.endsWith('.zst')) return promisify(zstdDecompress)(bytes);
  // Node has no xz. busybox has, and no initramfs is built without it.
  if (path.endsWith('.xz')) return commandOutput(await findBusybox(), ['unxz', '-c'], { input: bytes });
  return bytes;
}

/**
 * `modules.dep` for these modules as modprobe reads it: each line a path, a colon and the paths of all that
 * it needs, the first to load last (depmod.d and modules.dep(5)).
 */
export function modulesDep(modules: readonly LoadedModule[]): string {
  const byName = new Map(modules.map((module) => [module.name, module]));
  const needs = (module: LoadedModule, into: Set<LoadedModule>): Set<LoadedModule> => {
    for (const text of module.depends) {
      const other = byName.get(moduleName(text));
      if (!other || into.has(other)) continue;
      into.add(other);
      needs(other, into);
    }
    return into;
  };
  const position = new Map(modules.map((module, index) => [module, index]));
  return modules
    .map((module) => {
      const paths = [...needs(module, new Set([module]))].slice(1).sort((a, b) => position.get(b)! - position.get(a)!);
      return `${module.path}:${paths.map((other) => ` ${other.path}`).join('')}\n`;
    })
    .join('');
}

/** `modules.alias` for these modules: `alias <pattern> <module>` lines. */
export function modulesAlias(modules: readonly LoadedModule[]): string {
  return modules
    .flatMap((module) => module.aliases.map((alias) => `alias ${alias.replace(/\s+/g, '_')} ${module.name}\n`))
    .join('');
}
