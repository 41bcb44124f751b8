/** Sizes and media of disks. */
import * as z from 'zod';
import { diskSizeNote, mediumNote } from '../../client/notes.ts';
import { fromFolder } from '../../client/paths.ts';
import { command } from '../command.ts';
import { deviceNotFound, QmpError } from '../errors.ts';
import type { Monitor } from '../monitor.ts';
import { bool, int, none, str } from '../types.ts';
import { diskOfNode, findDisk, reportOf } from './block.ts';

const SECTOR = 512;

/** Which disk is meant: by its name, as long as there were drives, or by its device. */
const which = { device: str.optional(), id: str.optional() };

/** @throws QmpError for none, for both, or for a device that is no disk. */
async function theDisk(monitor: Monitor, device: string | undefined, id: string | undefined): Promise<string> {
  const name = id ?? device;
  if (name === undefined || (id !== undefined && device !== undefined)) {
    throw new QmpError("Need exactly one of 'device' and 'id'");
  }
  const disk = await findDisk(monitor, name);
  if (disk === undefined) throw deviceNotFound(name);
  return disk;
}

/** Disks of virtio have neither a tray nor a slot. @throws QmpError, always. */
async function refuse(monitor: Monitor, device: string | undefined, id: string | undefined): Promise<never> {
  const disk = await theDisk(monitor, device, id);
  throw new QmpError(`Device '${monitor.names.peer(disk)}' is not removable`);
}

async function resize(
  monitor: Monitor,
  { device, 'node-name': node, size }: { device?: string | undefined; 'node-name'?: string | undefined; size: number },
): Promise<void> {
  const disk =
    (device !== undefined && node === undefined && (await findDisk(monitor, device))) ||
    (node !== undefined && device === undefined && (await diskOfNode(monitor, node)));
  if (!disk) {
    if (node !== undefined && monitor.nodes.get(node)) {
      throw new QmpError(`Node '${node}' is in no disk: an image gets another size while a disk has it`);
    }
    throw new QmpError(`Cannot find device='${device ?? ''}' nor node-name='${node ?? ''}'`);
  }
  if (size < 0) throw new QmpError("Parameter 'size' expects a >0 size");
  // QEMU asks nobody whether a smaller one is meant, and a disk has whole sectors.
  const bytes = Math.ceil(size / SECTOR) * SECTOR;
  const before = await reportOf(monitor, disk);
  await monitor.machine.changeDisk(disk, { action: 'resize', size: bytes, shrink: true });
  await monitor.did(diskSizeNote(before, { size: bytes, bytes }, { shrink: true }));
}

export const MEDIUM = [
  command({
    name: 'block_resize',
    summary: "gives a disk's image another size, and tells the guest",
    changes: true,
    args: z.strictObject({ device: str.optional(), 'node-name': str.optional(), size: int }),
    returns: none,
    run: async (monitor, args) => {
      await resize(monitor, args);
      return {};
    },
  }),
  command({
    name: 'blockdev-change-medium',
    summary: 'puts another image behind a disk, and tells the guest of its size',
    changes: true,
    args: z.strictObject({
      ...{ ...which, filename: str, format: str.optional(), force: bool.optional() },
      'read-only-mode': z.enum(['retain', 'read-only', 'read-write']).optional(),
    }),
    returns: none,
    run: async (monitor, { device, id, filename, format, 'read-only-mode': mode = 'retain' }) => {
      const disk = await theDisk(monitor, device, id);
      const known = z.enum(['raw', 'qcow2']).optional().safeParse(format);
      if (!known.success) throw new QmpError(`Unknown driver '${format}'`);
      const before = await reportOf(monitor, disk);
      if (mode !== 'retain' && before.readonly !== (mode === 'read-only')) {
        throw new QmpError(
          `The driver of '${monitor.names.peer(disk)}' was told once that it is ${mode === 'read-only' ? 'writable' : 'read-only'}`,
        );
      }
      const how = known.data === undefined ? {} : { format: known.data };
      await monitor.machine.changeDisk(disk, { action: 'medium', file: filename, ...how });
      monitor.nodes.release(disk);
      await monitor.did(mediumNote(before, fromFolder(process.cwd(), filename), how));
      return {};
    },
  }),
  command({
    name: 'eject',
    summary: "takes a disk's medium out: none of these disks is removable",
    changes: true,
    args: z.strictObject({ ...which, force: bool.optional() }),
    returns: none,
    run: (monitor, { device, id }) => refuse(monitor, device, id),
  }),
  command({
    name: 'blockdev-open-tray',
    summary: 'opens the tray of a drive: no disk has one',
    changes: true,
    args: z.strictObject({ ...which, force: bool.optional() }),
    returns: none,
    run: (monitor, { device, id }) => refuse(monitor, device, id),
  }),
  command({
    name: 'blockdev-close-tray',
    summary: 'closes the tray of a drive: no disk has one',
    changes: true,
    args: z.strictObject(which),
    returns: none,
    run: (monitor, { device, id }) => refuse(monitor, device, id),
  }),
  command({
    name: 'blockdev-insert-medium',
    summary: 'puts a node into an empty drive: no disk can be without one',
    changes: true,
    args: z.strictObject({ id: str, 'node-name': str }),
    returns: none,
    run: (monitor, { id }) => refuse(monitor, undefined, id),
  }),
  command({
    name: 'blockdev-remove-medium',
    summary: 'takes the node out of a drive: no disk can be without one',
    changes: true,
    args: z.strictObject({ id: str }),
    returns: none,
    run: (monitor, { id }) => refuse(monitor, undefined, id),
  }),
];
