import { constants } from 'node:fs';
import { access, copyFile, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NemuError } from '../client/errors.ts';
import { downloadPackage, hasApt, privateApt, showPackage, systemApt, unpackPackage } from './apt.ts';
import { cacheRoot, publishFile } from './cache.ts';
import { type GuestArch, hostArch } from './guest.ts';
import { debianArch } from './guest_debian.ts';

const PT_INTERP = 3;
const EM: Record<GuestArch, number> = { x86_64: 62, aarch64: 183 };

/**
 * Path of a statically linked busybox for `arch`: this machine's own, or one of Debian's busybox-static
 * package that is downloaded into the cache once (no root needed).
 * @throws NemuError BUSYBOX_MISSING
 */
export async function findBusybox(arch: GuestArch = hostArch()): Promise<string> {
  const cached = join(cacheRoot(), 'busybox', arch, 'busybox');
  for (const path of ['/bin/busybox', '/usr/bin/busybox', cached]) {
    if (await isStaticProgram(path, arch)) return path;
  }
  await downloadBusybox(arch, cached);
  return cached;
}

/** True for an executable ELF-64 file of `arch` without a PT_INTERP program header. */
async function isStaticProgram(path: string, arch: GuestArch): Promise<boolean> {
  try {
    await access(path, constants.R_OK | constants.X_OK);
    const file = await open(path);
    try {
      const head = Buffer.alloc(4096);
      const { bytesRead } = await file.read(head, 0, head.length, 0);
      if (bytesRead < 64 || head.readUInt32BE(0) !== 0x7f454c46 || head.readUInt16LE(18) !== EM[arch]) return false;
      const [tableAt, entrySize, count] = [
        Number(head.readBigUInt64LE(32)),
        head.readUInt16LE(54),
        head.readUInt16LE(56),
      ];
      if (tableAt + entrySize * count > bytesRead) return false;
      for (let index = 0; index < count; index++) {
        if (head.readUInt32LE(tableAt + index * entrySize) === PT_INTERP) return false;
      }
      return true;
    } finally {
      await file.close();
    }
  } catch {
    return false;
  }
}

async function downloadBusybox(arch: GuestArch, target: string): Promise<void> {
  const hint = 'Install a statically linked busybox at /bin/busybox (on Debian: sudo apt-get install busybox-static).';
  if (!hasApt()) {
    throw new NemuError('BUSYBOX_MISSING', `This machine has no statically linked busybox for ${arch}.`, { hint });
  }
  const folder = await mkdtemp(join(tmpdir(), 'nemu-busybox-'));
  try {
    let apt = systemApt(debianArch(arch));
    if (arch !== hostArch() || !(await showPackage(apt, 'busybox-static'))) {
      apt = await privateApt(debianArch(arch), false);
    }
    const deb = await downloadPackage(apt, 'busybox-static', folder, () => {}).catch(async () =>
      downloadPackage(await privateApt(debianArch(arch), true), 'busybox-static', folder, () => {}),
    );
    await unpackPackage(deb, folder);
    const found = [join(folder, 'bin', 'busybox'), join(folder, 'usr', 'bin', 'busybox')];
    const source = (await isStaticProgram(found[0]!, arch)) ? found[0]! : found[1]!;
    await publishFile(target, (path) => copyFile(source, path));
  } catch (cause) {
    throw new NemuError('BUSYBOX_MISSING', `No busybox for ${arch} could be fetched. ${(cause as Error).message}`, {
      hint,
      cause,
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
