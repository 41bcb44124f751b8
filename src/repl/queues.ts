/** Virtqueues as they are in the guest's memory: virtio 1.2, sections 2.7.5 (split) and 2.8.13 (packed). */
import { inspect } from 'node:util';
import { NemuError } from '../client/errors.ts';
import type { MachineClient, QueueReport, VirtioReport } from '../client/machine_client.ts';
import { formatSize } from '../client/sizes.ts';
import { table } from '../client/text_table.ts';
import { address } from './values.ts';

const ENTRY_SIZE = 16;
/** What a device takes at most; a guest may write anything. */
const MOST_ENTRIES = 32768;
/** Descriptors that are shown of each queue. */
const MOST_SHOWN = 64;
const NEXT = 1;
const FLAGS: readonly (readonly [bit: number, name: string])[] = [
  [NEXT, 'next'],
  [2, 'write'],
  [4, 'indirect'],
];
const PACKED_FLAGS = [[1 << 7, 'available'] as const, [1 << 15, 'used'] as const];

export interface Descriptor {
  readonly index: number;
  /** Guest-physical, as the guest wrote it. */
  readonly address: bigint;
  /** Bytes. */
  readonly length: number;
  /** next, write (the device does), indirect; of a packed ring available and used, which turn with each round. */
  readonly flags: readonly string[];
  /** Index of the next one of its chain (split). */
  readonly next?: number;
  /** Of its buffer (packed). */
  readonly id?: number;
}

/** A virtqueue of a device, as it was when it was asked for. */
export class VirtQueue {
  readonly report: QueueReport;
  readonly packed: boolean;
  /** Those that hold something, by index. */
  readonly descriptors: readonly Descriptor[];

  constructor(report: QueueReport, packed: boolean, descriptors: readonly Descriptor[]) {
    this.report = report;
    this.packed = packed;
    this.descriptors = descriptors;
  }

  [inspect.custom](): string {
    const { index, size, available, used, inFlight, descriptors, driver, device } = this.report;
    const at = available === undefined ? '' : `, next ${available}, used ${used}`;
    const places = `${address(descriptors)}, ${address(driver)}, ${address(device)}`;
    const head = `queue ${index}: ${this.packed ? 'packed' : 'split'}, size ${size} at ${places}${at}, ${inFlight} in flight`;
    const all = this.descriptors;
    if (all.length === 0) return `${head}; its descriptors are empty`;
    const rows = all
      .slice(0, MOST_SHOWN)
      .map((each) => [
        ...[each.index, address(each.address), each.length, each.flags.join(' ')],
        each.next ?? each.id ?? '',
      ]);
    const more = all.length > MOST_SHOWN ? [`and ${all.length - MOST_SHOWN} more`] : [];
    return [head, table(['descriptor', 'address', 'length', 'flags', this.packed ? 'id' : 'next'], rows), ...more].join(
      '\n',
    );
  }
}

/**
 * The descriptors of a queue, from guest memory.
 * @throws NemuError ADDRESS for a queue that the guest has put where there is no RAM.
 */
export async function readQueue(machine: MachineClient, report: QueueReport, packed: boolean): Promise<VirtQueue> {
  const count = Math.min(report.size, MOST_ENTRIES);
  const bytes = Buffer.from(await machine.readMemory(report.descriptors, count * ENTRY_SIZE));
  const found: Descriptor[] = [];
  for (let index = 0; index < count; index++) {
    const entry = bytes.subarray(index * ENTRY_SIZE, (index + 1) * ENTRY_SIZE);
    if (entry.every((byte) => byte === 0)) continue;
    found.push(descriptorOf(entry, index, packed));
  }
  return new VirtQueue(report, packed, found);
}

function descriptorOf(entry: Buffer, index: number, packed: boolean): Descriptor {
  const flags = entry.readUInt16LE(packed ? 14 : 12);
  const number = entry.readUInt16LE(packed ? 12 : 14);
  const names = [...FLAGS, ...(packed ? PACKED_FLAGS : [])].flatMap(([bit, name]) => (flags & bit ? [name] : []));
  return {
    ...{ index, address: entry.readBigUInt64LE(0), length: entry.readUInt32LE(8), flags: names },
    ...(packed ? { id: number } : flags & NEXT ? { next: number } : {}),
  };
}

/** Every queue that a driver has set up. */
export function readQueues(machine: MachineClient, { queues, packed }: VirtioReport): Promise<VirtQueue[]> {
  return Promise.all(queues.filter(({ enabled }) => enabled).map((queue) => readQueue(machine, queue, packed)));
}

/** Queues of one device with their descriptors. @throws NemuError DEVICE */
export async function tellQueues(
  machine: MachineClient,
  devices: readonly VirtioReport[],
  name: string,
): Promise<string> {
  const found = devices.find((each) => each.name === name);
  if (!found) {
    throw new NemuError('DEVICE', `There is no virtio device "${name}".`, {
      hint: `There are ${devices.map((each) => each.name).join(', ') || 'none'}.`,
    });
  }
  const texts = found.queues
    .filter(({ enabled }) => enabled)
    .map((queue) =>
      readQueue(machine, queue, found.packed).then(
        (read) => inspect(read),
        // The others are to be seen all the same.
        (error: NemuError) => `queue ${queue.index}: ${error.message}`,
      ),
    );
  return (await Promise.all(texts)).join('\n\n') || `The driver of ${name} has set up no queue.`;
}

/** KVM has these itself. */
const KVM_MMIO = [
  { from: 0xfec00000, size: 0x1000, what: 'I/O APIC' },
  { from: 0xfee00000, size: 0x1000, what: 'local APICs, MSIs' },
];

/** What is where in guest-physical space. */
export async function tellMap(machine: MachineClient): Promise<string> {
  const [ranges, { pci, mmio }, { regions }] = await Promise.all([
    machine.memoryMap(),
    machine.devices(),
    machine.counters(),
  ]);
  const bars = pci.flatMap(({ name, bars: all }) =>
    all.flatMap(({ index, kind, base, size }) =>
      kind === 'io' || base === undefined ? [] : [{ from: base, size, what: `${name} BAR ${index}` }],
    ),
  );
  const known = [
    ...ranges.map(({ address: from, size, dimm }) => ({ from, size, what: dimm ?? 'RAM' })),
    ...mmio.map(({ base: from, name }) => ({ from, size: 0x200, what: `${name} (virtio)` })),
    ...bars,
  ];
  const inside = (at: number) => known.some(({ from, size }) => at >= from && at < from + size);
  const fixed = regions
    .filter(({ space, base }) => space === 'mmio' && !inside(base))
    .map(({ base, size, name }) => ({ from: base, size, what: name }));
  const apics = KVM_MMIO.filter(({ from }) => !inside(from) && !fixed.some((each) => each.from === from));
  const rows = [...known, ...fixed, ...apics]
    .toSorted((a, b) => a.from - b.from)
    .map(({ from, size, what }) => [address(from), address(from + size - 1), formatSize(size), what]);
  return table(['from', 'to', 'size', 'what'], rows);
}
