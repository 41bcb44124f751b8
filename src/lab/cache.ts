import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

const TEMP_NAME = /^\.tmp-(\d+)-[0-9a-f]+$/;

/** `$XDG_CACHE_HOME/nemu`, by the XDG Base Directory Specification: a relative value counts as unset. */
export function cacheRoot(): string {
  const base = process.env.XDG_CACHE_HOME;
  return join(base?.startsWith('/') ? base : join(homedir(), '.cache'), 'nemu');
}

/**
 * Makes the folder `target` appear complete or not at all. `fill` gets an empty folder beside it, which is
 * renamed to `target` once `fill` is done. When another process was faster its folder stays and ours goes.
 * A killed process leaves only its temporary folder, which the next call removes.
 */
export async function publishFolder(target: string, fill: (folder: string) => Promise<void>): Promise<void> {
  const parent = dirname(target);
  await mkdir(parent, { recursive: true });
  await sweepTemporary(parent);
  const folder = temporaryBeside(target);
  await mkdir(folder);
  try {
    await fill(folder);
    await rename(folder, target);
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    const { code, dest } = error as NodeJS.ErrnoException & { dest?: string };
    const lostTheRace = (code === 'ENOTEMPTY' || code === 'EEXIST') && dest === target;
    if (!lostTheRace) throw error;
  }
}

/** The same for one file: `fill` writes to the path that it gets, which then replaces `target`. */
export async function publishFile(target: string, fill: (path: string) => Promise<void>): Promise<void> {
  const parent = dirname(target);
  await mkdir(parent, { recursive: true });
  await sweepTemporary(parent);
  const path = temporaryBeside(target);
  try {
    await fill(path);
    await rename(path, target);
  } finally {
    await rm(path, { force: true });
  }
}

/** Notes that an entry of the cache was used now: `dropUnused` goes by that. True when there is such an entry. */
export async function touch(path: string): Promise<boolean> {
  const now = new Date();
  return utimes(path, now, now).then(
    () => true,
    () => false,
  );
}

/** Removes the entries of `folder` whose name matches, all but the `keep` that were used last. */
export async function dropUnused(folder: string, name: RegExp, keep: number): Promise<void> {
  const names = (await readdir(folder).catch(() => [])).filter((entry) => name.test(entry));
  const dated = await Promise.all(
    names.map(async (entry) => {
      const info = await stat(join(folder, entry)).catch(() => undefined);
      return { entry, time: info?.mtimeMs ?? 0 };
    }),
  );
  dated.sort((a, b) => b.time - a.time);
  for (const { entry } of dated.slice(keep)) await rm(join(folder, entry), { recursive: true, force: true });
}

function temporaryBeside(target: string): string {
  return join(dirname(target), `.tmp-${process.pid}-${randomBytes(6).toString('hex')}`);
}

/** Removes what processes that are gone left in `parent`. */
async function sweepTemporary(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const pid = TEMP_NAME.exec(name)?.[1];
    if (pid && !isAlive(Number(pid))) await rm(join(parent, name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
