/** Memory: DIMMs, what they are made of, the balloon, and the guest's memory in files. */
import * as z from 'zod';
import { AddressSpace } from '../../client/guest_kernel/address_space.ts';
import { type LiveDevice, pluggedSize } from '../../client/live.ts';
import { balloonNote } from '../../client/notes.ts';
import { command } from '../command.ts';
import { QmpError } from '../errors.ts';
import { noAnswer, type OspmStatus, ospmStatus } from '../events.ts';
import { createFile } from '../files.ts';
import type { Monitor } from '../monitor.ts';
import { bool, int, int64, none, str } from '../types.ts';

const dimm = z.strictObject({
  ...{ id: str.optional(), addr: int, size: int, slot: int, node: int },
  ...{ memdev: str, hotplugged: bool, hotpluggable: bool },
});

const virtioMem = z.strictObject({
  ...{ id: str.optional(), memaddr: int, 'requested-size': int, size: int, 'max-size': int },
  ...{ 'block-size': int, node: int, memdev: str },
});

const virtioPmem = z.strictObject({ id: str.optional(), memaddr: int, size: int, memdev: str });

const pmemOf = (
  monitor: Monitor,
  id: string,
  { address, size }: { readonly address: number; readonly size: number },
) => ({
  ...{ id: monitor.names.peer(id), memaddr: address, size, memdev: memdevOf(monitor, { id }) },
});

/** What stands behind a DIMM: an object of the peer's, or one that the machine made. */
export function memdevOf({ memory }: Monitor, device: { readonly id: string }): string {
  const own = memory.find(({ usedBy }) => usedBy === device.id);
  return `/objects/${own?.id ?? `mem${device.id}`}`;
}

export async function memoryDevices(monitor: Monitor) {
  const { memory, nvdimms, pci } = await monitor.machine.plugged();
  const modules = [...memory.dimms, ...nvdimms].map((device) => ({
    type: device.kind === 'nvdimm' ? ('nvdimm' as const) : ('dimm' as const),
    data: {
      ...{ id: monitor.names.peer(device.id), addr: device.address, size: device.size, slot: device.slot },
      ...{
        node: device.node,
        memdev: memdevOf(monitor, device),
        hotplugged: monitor.hotplugged.has(device.id),
        hotpluggable: true,
      },
    },
  }));
  const blocks = memory.virtio.map((device) => ({
    type: 'virtio-mem' as const,
    data: {
      ...{ id: monitor.names.peer(device.id), memaddr: device.address, 'requested-size': device.requested },
      ...{ size: device.plugged, 'max-size': device.size, 'block-size': device.block, node: device.node },
      memdev: memdevOf(monitor, device),
    },
  }));
  const files = pci.devices.flatMap((device) =>
    device.type === 'virtio-pmem' && device.memory
      ? [{ type: 'virtio-pmem' as const, data: pmemOf(monitor, device.id, device.memory) }]
      : [],
  );
  return [...modules, ...files, ...blocks];
}

export async function memorySummary({ machine }: Monitor) {
  const { memory } = await machine.plugged();
  return { 'base-memory': memory.boot, 'plugged-memory': pluggedSize(memory) };
}

async function allRam(monitor: Monitor): Promise<number> {
  const summary = await memorySummary(monitor);
  return summary['base-memory'] + summary['plugged-memory'];
}

/** All RAM of the guest less what the balloon holds: QEMU's word for its size. */
export async function balloonSize(monitor: Monitor): Promise<number> {
  const { actual } = await monitor.machine.balloon();
  return (await allRam(monitor)) - actual;
}

async function ospmStatuses(monitor: Monitor): Promise<OspmStatus[]> {
  const { cpus, memory, nvdimms } = await monitor.machine.plugged();
  const at = <T>(length: number, make: (index: number) => T) => Array.from({ length }, (_, index) => make(index));
  const name = (device: LiveDevice | undefined) =>
    device && !monitor.names.isAnonymous(device) ? monitor.names.peer(device.id) : undefined;
  const modules = [...memory.dimms, ...nvdimms];
  const slots = at(memory.slots ?? 0, (slot) => {
    const device = modules.find((each) => each.slot === slot);
    return (device && monitor.ospmStatus(device.id)) ?? noAnswer('DIMM', slot, name(device));
  });
  // Without room for more they have no registers to answer through.
  const places = at(cpus.max ?? 0, (index) => {
    const device = cpus.present.find((each) => each.index === index);
    return (device && monitor.ospmStatus(device.id)) ?? noAnswer('CPU', index, name(device));
  });
  return [...slots, ...places];
}

/** Bytes that are read from the guest at once. */
const PIECE = 1 << 20;
const MAX_FILE = 2 ** 40;

/** Writes what `read` gives to a new file, piece by piece. */
async function save(
  filename: string,
  from: bigint,
  size: number,
  read: (at: bigint, count: number) => Promise<Uint8Array>,
): Promise<void> {
  if (size < 0 || size > MAX_FILE) throw new QmpError("Parameter 'size' expects a number of bytes");
  const file = await createFile(filename);
  try {
    for (let done = 0; done < size; done += PIECE) {
      await file.write(await read(from + BigInt(done), Math.min(PIECE, size - done)));
    }
  } finally {
    await file.close();
  }
}

/** The memory as a vCPU has it now. */
export async function virtualMemory({ machine }: Monitor, index: number): Promise<AddressSpace> {
  const vcpu = (await machine.inspect()).find((each) => each.index === index);
  if (!vcpu?.registers) throw new QmpError("Parameter 'cpu-index' expects a CPU number");
  const { cr3 = '0', cr4 = '0' } = vcpu.registers;
  const root = Number(BigInt(cr3) & 0x000f_ffff_ffff_f000n);
  // LA57 (Intel SDM volume 3, 2.5) says how many levels there are.
  const levels = BigInt(cr4) & (1n << 12n) ? 5 : 4;
  return new AddressSpace((address, length) => machine.readMemory(address, length), root, levels);
}

export const MEMORY = [
  command({
    name: 'query-memory-devices',
    summary: 'DIMMs that were plugged, and virtio-mem and virtio-pmem devices',
    args: none,
    returns: z.array(
      z.discriminatedUnion('type', [
        z.strictObject({ type: z.literal('dimm'), data: dimm }),
        z.strictObject({ type: z.literal('nvdimm'), data: dimm }),
        z.strictObject({ type: z.literal('virtio-pmem'), data: virtioPmem }),
        z.strictObject({ type: z.literal('virtio-mem'), data: virtioMem }),
      ]),
    ),
    run: memoryDevices,
  }),
  command({
    name: 'query-memory-size-summary',
    summary: 'bytes at boot, and plugged',
    args: none,
    returns: z.strictObject({ 'base-memory': int, 'plugged-memory': int.optional() }),
    run: memorySummary,
  }),
  command({
    name: 'query-acpi-ospm-status',
    summary: "the guest's last answer about each slot of a DIMM and each place of a vCPU (_OST)",
    args: none,
    returns: z.array(ospmStatus),
    run: ospmStatuses,
  }),
  command({
    name: 'balloon',
    summary: 'asks the guest to make do with so many bytes of RAM',
    changes: true,
    args: z.strictObject({ value: int }),
    returns: none,
    run: async (monitor, { value }) => {
      const { target: before } = await monitor.machine.balloon();
      if (value <= 0) throw new QmpError("Parameter 'target' expects a size");
      const bytes = Math.max(0, (await allRam(monitor)) - value);
      await monitor.machine.balloon(bytes);
      await monitor.did(balloonNote({ size: bytes, bytes }, before));
      return {};
    },
  }),
  command({
    name: 'query-balloon',
    summary: 'RAM less what the balloon holds',
    args: none,
    returns: z.strictObject({ actual: int }),
    run: async (monitor) => ({ actual: await balloonSize(monitor) }),
  }),
  command({
    name: 'pmemsave',
    summary: "writes a range of the guest's memory to a file, by guest-physical address",
    args: z.strictObject({ val: int, size: int, filename: str }),
    returns: none,
    run: async ({ machine }, { val, size, filename }) => {
      await save(filename, BigInt(val), size, (at, count) => machine.readMemory(Number(at), count));
      return {};
    },
  }),
  command({
    name: 'memsave',
    summary: 'the same by address of a vCPU',
    args: z.strictObject({ val: int64, size: int, filename: str, 'cpu-index': int.optional() }),
    returns: none,
    run: async (monitor, { val, size, filename, 'cpu-index': cpu = 0 }) => {
      const memory = await virtualMemory(monitor, cpu);
      await save(filename, val, size, (at, count) => memory.read(at, count));
      return {};
    },
  }),
];
