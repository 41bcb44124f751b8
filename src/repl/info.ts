/** Tables of what a machine is and does. */
import { NemuError } from '../client/errors.ts';
import { isSettled, type PciDevice, ramSize } from '../client/live.ts';
import type { MachineClient, VirtioReport } from '../client/machine_client.ts';
import { distanceMatrix } from '../client/numa.ts';
import { formatSize } from '../client/sizes.ts';
import { didYouMean } from '../client/suggest.ts';
import { table } from '../client/text_table.ts';
import type { VirtioMemReport } from '../client/virtio_mem.ts';
import { acpiTables } from './acpi.ts';
import { tellInterrupts, tellLocalApics } from './interrupts.ts';
import type { Kernel } from './kernel.ts';
import { networkText } from './nets.ts';
import { ConfigView } from './pci_config.ts';
import { tellMap, tellQueues } from './queues.ts';

const hex = (value: number) => `0x${value.toString(16)}`;

const STATUS_BITS = ['ACKNOWLEDGE', 'DRIVER', 'DRIVER_OK', 'FEATURES_OK', '', '', 'NEEDS_RESET', 'FAILED'];
const VIRTIO_TYPES: Record<number, string> = {
  1: 'network',
  2: 'block',
  3: 'console',
  4: 'entropy',
  5: 'balloon',
  19: 'vsock',
  24: 'memory',
  26: 'file system',
  27: 'persistent memory',
};

/** @param name of what it is about, for those that can tell of one. */
type Teller = (machine: MachineClient, kernel: Kernel, name?: string) => Promise<string>;

interface Topic {
  readonly help: string;
  readonly tell: Teller;
  readonly ofOne?: boolean;
  /** To ask for it changes how the machine runs. */
  readonly changes?: boolean;
}

/** Everything that `info` can show, with a line of help. */
export const INFO: Readonly<Record<string, Topic>> = {
  status: { help: 'what the machine is doing', tell: status },
  cpus: { help: 'vCPUs: state, where they are, exits', tell: cpus },
  registers: { help: "every vCPU's registers", tell: registers },
  memory: { help: 'RAM: size, backend, nodes', tell: memory },
  dirty: { help: 'pages of RAM that the guest writes to in a second', tell: dirty, changes: true },
  nvdimms: { help: 'persistent memory: files, labels, flushes', tell: nvdimms },
  requests: { help: 'what was plugged and unplugged, stage by stage', tell: requests },
  numa: { help: 'nodes, their processors and memory, distances', tell: numa },
  pci: { help: 'the PCI tree: functions, drivers, BARs, slots', tell: pci },
  ports: { help: 'hot-plug ports and slots, and what is in them', tell: ports },
  map: { help: 'what is where in guest-physical space: RAM, DIMMs, BARs, registers', tell: tellMap },
  irq: { help: 'interrupts: MSI-X vectors, INTx pins, pins of the I/O APIC and the PICs', tell: tellInterrupts },
  apic: { help: "each vCPU's local APIC: local vectors, timer, what it serves and has to serve", tell: tellLocalApics },
  queues: {
    help: 'virtqueues: size, rings, position, buffers in flight; info queues NAME shows descriptors',
    tell: queues,
    ofOne: true,
  },
  exits: { help: 'exits by reason and by device', tell: exits },
  host: { help: "what the machine takes of its host: KVM's slots and routes, descriptors, threads", tell: host },
  acpi: { help: 'ACPI tables as the guest has them; acpi DSDT shows one in words', tell: acpi },
  modules: { help: "the kernel's modules and where their code is, from its memory", tell: modules },
  disks: { help: 'disks and their images', tell: disks },
  nets: { help: 'network cards: link, packets, limits, forwarded ports', tell: nets },
  consoles: { help: 'consoles', tell: async (machine) => machine.consoles.join('\n') || 'There are none.' },
};

/** @throws NemuError USAGE for a topic that is none. */
export async function tellInfo(topic: string, machine: MachineClient, kernel: Kernel, name?: string): Promise<string> {
  const found = Object.hasOwn(INFO, topic) ? INFO[topic] : undefined;
  if (found && name !== undefined && !found.ofOne) {
    throw new NemuError('USAGE', `info ${topic} is about all of them: it takes no name.`, {
      hint: `Those that do: ${Object.keys(INFO)
        .filter((each) => INFO[each].ofOne)
        .join(', ')}.`,
    });
  }
  if (found) return found.tell(machine, kernel, name);
  const near = didYouMean(topic, Object.keys(INFO));
  throw new NemuError('USAGE', `info knows nothing of "${topic}".`, {
    hint: near ? `Did you mean ${near}?` : `It knows ${Object.keys(INFO).join(', ')}.`,
  });
}

async function host(machine: MachineClient): Promise<string> {
  const { heap, ...counts } = (await machine.counters()).host;
  return table(['what', 'how many'], [...Object.entries(counts), ['heap', formatSize(heap)]]);
}

async function status(machine: MachineClient): Promise<string> {
  const { description, state, end } = machine;
  // What was plugged is known as long as there is a machine.
  const here = await machine.plugged().catch(() => undefined);
  const count = here?.cpus.present.length ?? description.cpus.count;
  const size = here ? ramSize(here.memory) : description.memory.size;
  return [
    `${description.name}: ${state}, ${description.machine} with ${count} vCPU${count === 1 ? '' : 's'} and ${formatSize(size)}`,
    ...(end ? [end.detail] : []),
  ].join('\n');
}

async function cpus(machine: MachineClient, kernel: Kernel): Promise<string> {
  const rows = await Promise.all(
    (await machine.inspect()).map(async ({ index, apicId, threadId, state, activity, registers, exits, forwarded }) => {
      const rip = registers && BigInt(registers.rip);
      return [
        index,
        apicId,
        threadId,
        activity ?? state,
        rip === undefined ? '' : ((await kernel.describe(rip)) ?? `0x${rip.toString(16)}`),
        Object.values(exits).reduce((sum, count) => sum + count, 0),
        forwarded,
      ];
    }),
  );
  return table(['vcpu', 'apic id', 'thread', 'state', 'at', 'exits', 'forwarded'], rows);
}

/** How long `info dirty` watches. */
const DIRTY_MS = 1000;

async function dirty(machine: MachineClient): Promise<string> {
  const { milliseconds, ranges } = await machine.dirtyRate(DIRTY_MS);
  const rate = (bytes: number) => `${formatSize((bytes * 1000) / milliseconds)}/s`;
  return table(
    ['range', 'address', 'size', 'written to', 'rate'],
    [
      ...ranges.map((range) => [
        ...[range.dimm ?? 'boot', hex(range.address), formatSize(range.size)],
        ...[formatSize(range.dirty), rate(range.dirty)],
      ]),
    ],
  );
}

async function modules(_machine: MachineClient, kernel: Kernel): Promise<string> {
  const loaded = await kernel.modules();
  if (loaded.length === 0) return 'The kernel has no modules, or does not tell its types (BTF).';
  return table(
    ['module', 'code', 'size'],
    loaded.map(({ name, base, size }) => [name, `0x${base.toString(16)}`, formatSize(size)]),
  );
}

async function registers(machine: MachineClient): Promise<string> {
  return (await machine.inspect())
    .map(({ index, registers }) => {
      const width = Math.max(...Object.keys(registers ?? {}).map((name) => name.length));
      const cells = Object.entries(registers ?? {}).map(([name, value]) => `${name.padStart(width)} ${value}`);
      const rows = Array.from({ length: Math.ceil(cells.length / 3) }, (_, row) =>
        cells
          .slice(row * 3, row * 3 + 3)
          .map((cell) => cell.padEnd(width + 21))
          .join(' ')
          .trimEnd(),
      );
      return [`vCPU ${index}`, ...rows].join('\n');
    })
    .join('\n\n');
}

async function memory(machine: MachineClient): Promise<string> {
  const { memory: here, pci } = await machine.plugged();
  const { dimms, max, slots, virtio } = here;
  const room = max === undefined ? 'no room for DIMMs' : `room for ${formatSize(max)} in ${slots} DIMMs`;
  const rows = dimms.map((dimm) => [
    ...[dimm.id, dimm.slot, formatSize(dimm.size), hex(dimm.address), dimm.node, dimm.path ?? dimm.backend],
  ]);
  const list = rows.length > 0 ? `\n${table(['dimm', 'slot', 'size', 'address', 'node', 'backend'], rows)}` : '';
  const blocks = virtio.length > 0 ? `\n${virtioMemory(virtio)}` : '';
  return `${bootMemory(machine)}; ${room}${list}${blocks}${virtioPmem(pci.devices)}`;
}

function virtioPmem(devices: readonly PciDevice[]): string {
  const rows = devices.flatMap(({ id, type, memory: at, plug }) =>
    type === 'virtio-pmem' && at
      ? [[id, formatSize(at.size), hex(at.address), plug && 'file' in plug ? plug.file : '', pmemKeeps(plug)]]
      : [],
  );
  return rows.length > 0 ? `\n${table(['virtio-pmem', 'size', 'address', 'file', 'stores'], rows)}` : '';
}

const pmemKeeps = (plug: PciDevice['plug']) =>
  plug && 'share' in plug && plug.share === false ? 'with the machine' : 'in the file';

function virtioMemory(devices: readonly VirtioMemReport[]): string {
  const rows = devices.map((each) => {
    const { id, plugged, requested, size, block, address: at, node, requests, memslots } = each;
    const { plug, unplug, unplugAll, nack, busy, error } = requests;
    const said = [
      `${plug} plugs`,
      `${unplug + unplugAll} unplugs`,
      ...Object.entries({ nack, busy, error }).flatMap(([name, count]) => (count > 0 ? [`${count} ${name}`] : [])),
    ];
    return [
      ...[id, formatSize(plugged), formatSize(requested), formatSize(size), formatSize(block), hex(at), node],
      `${memslots.used}/${memslots.all}`,
      each.driver ? said.join(', ') : 'no driver',
    ];
  });
  return table(['virtio-mem', 'plugged', 'asked', 'most', 'block', 'address', 'node', 'memslots', 'driver'], rows);
}

async function nvdimms(machine: MachineClient): Promise<string> {
  const list = (await machine.plugged()).nvdimms;
  if (list.length === 0) return 'There are none: --nvdimm file=pm.img,size=256M, or vm.nvdimm.plug.';
  const rows = list.map(({ id, slot, size, labelSize, address: at, node, flushes, failed, readonly, share, file }) => [
    ...[id, slot, formatSize(size), labelSize > 0 ? formatSize(labelSize) : '', hex(at), node, flushes],
    [readonly ? 'read-only' : share ? '' : 'private', failed ? `flush failed: ${failed}` : '']
      .filter(Boolean)
      .join(', '),
    file,
  ]);
  return table(['nvdimm', 'slot', 'size', 'labels', 'address', 'node', 'flushes', '', 'file'], rows);
}

async function requests(machine: MachineClient): Promise<string> {
  const list = await machine.requests();
  if (list.length === 0) return 'Nothing was plugged or unplugged yet.';
  return table(
    ['', 'device', 'stages', ''],
    list.map(({ action, device, stage, history, reason, guest }) => [
      action,
      device.id,
      history.map(({ stage }) => stage).join(' → '),
      reason ?? (isSettled(stage) ? '' : (guest ?? '')),
    ]),
  );
}

function bootMemory({ description }: MachineClient): string {
  const { size, backend, path, hugepages, share, lock, prealloc, policy } = description.memory;
  const traits = [
    backend + (path ? ` ${path}` : ''),
    ...(hugepages ? [`huge pages of ${hugepages}`] : []),
    ...(share ? ['shared'] : []),
    ...(lock ? ['locked'] : []),
    ...(prealloc ? ['preallocated'] : []),
    ...(policy ? [`policy ${policy}`] : []),
  ];
  return `${formatSize(size)} (${size} bytes), ${traits.join(', ')}`;
}

async function numa(machine: MachineClient): Promise<string> {
  const { numa: nodes } = machine.description;
  if (!nodes) return 'The machine has one node: it was made without --numa.';
  const { cpus: processors, memory: here } = await machine.plugged();
  const present = new Set(processors.present.map(({ index }) => index));
  const distances = distanceMatrix(nodes);
  const plugged = (node: number) =>
    [...here.dimms.map((each) => ({ ...each, plugged: each.size })), ...here.virtio]
      .filter((each) => each.node === node)
      .reduce((sum, each) => sum + each.plugged, 0);
  return table(
    ['node', 'cpus', 'memory', ...distances.map((_, to) => `to ${to}`)],
    nodes.nodes.map(({ cpus: list, memory: size = 0 }, node) => [
      ...[node, list.filter((index) => present.has(index)).join(','), formatSize(size + plugged(node))],
      ...distances[node],
    ]),
  );
}

async function pci(machine: MachineClient): Promise<string> {
  const { pci: functions, mmio } = await machine.devices();
  if (functions.length === 0) {
    return mmio.length > 0
      ? table(
          ['address', 'device', 'type', 'status'],
          mmio.map((each) => [hex(each.base), each.name, typeName(each), statusOf(each)]),
        )
      : 'The machine has no PCI.';
  }
  const depth = new Map<string, number>();
  const rows = functions.map(({ name, address, bridge, config, bars, virtio }) => {
    const level = bridge === undefined ? 0 : (depth.get(bridge) ?? 0) + 1;
    depth.set(name, level);
    const view = new ConfigView(config);
    const places = bars
      .filter(({ base }) => base !== undefined)
      .map(({ base, size, kind }) => `${hex(base as number)}${kind === 'io' ? ' ports' : ''} ${formatSize(size)}`);
    return [
      `${'  '.repeat(level)}${address}`,
      name,
      `${view.vendor.toString(16).padStart(4, '0')}:${view.device.toString(16).padStart(4, '0')}`,
      view.className,
      [...(virtio ? [statusOf(virtio)] : []), ...(view.slot ? [view.slot] : []), ...places].join('; '),
    ];
  });
  return table(['function', 'name', 'id', 'class', ''], rows);
}

export const typeName = ({ type }: VirtioReport) => VIRTIO_TYPES[type] ?? `type ${type}`;

export function statusOf({ status: value }: VirtioReport): string {
  if (value === 0) return 'no driver';
  if (value & 0x40) return 'needs a reset';
  if (value & 0x80) return 'driver failed';
  if (value & 4) return 'driver ready';
  return STATUS_BITS.filter((name, bit) => name && value & (1 << bit)).join('|');
}

async function queues(machine: MachineClient, _kernel: Kernel, name?: string): Promise<string> {
  const { pci: functions, mmio } = await machine.devices();
  const devices = [...functions.flatMap(({ virtio }) => (virtio ? [virtio] : [])), ...mmio];
  if (name !== undefined) return tellQueues(machine, devices, name);
  const rows = devices.flatMap((each) =>
    each.queues
      .filter(({ enabled }) => enabled)
      .map(({ index, size, descriptors, driver, device, available, used, inFlight }) => [
        each.name,
        index,
        each.packed ? 'packed' : 'split',
        size,
        hex(descriptors),
        hex(driver),
        hex(device),
        available ?? '',
        used ?? '',
        inFlight,
      ]),
  );
  const head = ['device', 'queue', 'ring', 'size', 'descriptors', 'driver', 'device', 'next', 'used', 'in flight'];
  return rows.length > 0 ? table(head, rows) : 'No driver has set up a queue.';
}

async function exits(machine: MachineClient): Promise<string> {
  const counters = await machine.counters();
  const sums = new Map<string, number>();
  for (const vcpu of counters.vcpus) {
    for (const [reason, count] of Object.entries(vcpu.exits)) sums.set(reason, (sums.get(reason) ?? 0) + count);
  }
  const reasons = table(
    ['reason', 'exits'],
    [...sums].sort((a, b) => b[1] - a[1]),
  );
  const regions = table(
    ['device', 'space', 'address', 'reads', 'writes'],
    counters.regions
      .filter(({ reads, writes }) => reads + writes > 0)
      .sort((a, b) => b.reads + b.writes - a.reads - a.writes)
      .map(({ name, space, base, reads, writes }) => [name, space, hex(base), reads, writes]),
  );
  return `${reasons}\n\n${regions}`;
}

async function acpi(machine: MachineClient): Promise<string> {
  const rows = (await acpiTables(machine)).map((each) => [
    ...[each.signature, hex(each.address), each.bytes.length, each.revision, each.oemId],
    each.valid ? '' : 'checksum wrong',
  ]);
  return table(['table', 'address', 'bytes', 'revision', 'oem', ''], rows);
}

async function disks(machine: MachineClient): Promise<string> {
  const list = await machine.disks();
  if (list.length === 0) return 'The machine has no disk.';
  const rows = list.map(({ name, file, size, throttle, throttled, operations }) => {
    const { read, write, flush } = operations;
    const all = Object.values(operations);
    const requests = all.reduce((sum, each) => sum + each.requests, 0);
    const us = all.reduce((sum, each) => sum + each.totalUs, 0);
    const limits = Object.entries(throttle).map(([key, limit]) => `${key}=${limit}`);
    return [
      ...[name, formatSize(size), read.requests, formatSize(read.bytes), write.requests, formatSize(write.bytes)],
      ...[flush.requests, all.reduce((sum, each) => sum + each.failed, 0)],
      requests > 0 ? Math.round(us / requests) : 0,
      [...limits, ...(throttled > 0 ? [`${throttled} wait`] : [])].join(' '),
      file,
    ];
  });
  const head = ['disk', 'size', 'reads', 'bytes', 'writes', 'bytes', 'flushes', 'failed', 'µs each', 'limits', 'file'];
  return table(head, rows);
}

/** Where devices come and go, and what is there. */
async function ports(machine: MachineClient): Promise<string> {
  const { ports: list, devices } = (await machine.plugged()).pci;
  if (list.length === 0) return 'The machine has no place where devices of PCI come and go.';
  return table(
    ['place', 'device', 'type', ''],
    list.map(({ id, device, state }) => [
      id,
      device ?? 'free',
      devices.find((each) => each.id === device)?.type ?? '',
      state ? [state.powered ? 'on' : 'off', `power indicator ${state.powerIndicator}`].join(', ') : '',
    ]),
  );
}

async function nets(machine: MachineClient): Promise<string> {
  const list = await machine.nets();
  if (list.length === 0) return 'The machine has no network card.';
  const rows = list.map((net) => {
    const { name, mac, link, throttle, rx, tx } = net;
    const limits = Object.entries(throttle).map(([key, limit]) => `${key}=${limit}`);
    const waiting = (['rx', 'tx'] as const).filter((which) => net[which].throttled).map((which) => `${which} waits`);
    return [
      ...[name, mac, link ? 'up' : 'down'],
      ...[rx, tx].flatMap(({ packets, bytes, dropped, errors }) => [packets, formatSize(bytes), dropped, errors]),
      [...limits, ...waiting].join(' '),
      networkText(net),
    ];
  });
  const each = ['bytes', 'dropped', 'errors'];
  return table(['card', 'mac', 'link', 'received', ...each, 'sent', ...each, 'limits', 'network'], rows);
}
