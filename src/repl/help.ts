/** What `help` and `?` say of each member. */

import { AcpiTable } from './acpi.ts';
import { Cpu, Cpus } from './cpus.ts';
import { PciDevice, PluggedDevice } from './devices.ts';
import { Disk } from './disks.ts';
import { Journal } from './journal.ts';
import { Kernel } from './kernel.ts';
import { Dimm, DirtyRate, Memory } from './memory.ts';
import { Net } from './nets.ts';
import { Nvdimm, Nvdimms } from './nvdimm.ts';
import { twoColumns } from './prose.ts';
import { VirtioMem } from './virtio_mem.ts';
import { Vm } from './vm.ts';

type Members = Readonly<Record<string, readonly [signature: string, text: string]>>;

type Type = abstract new (...args: never[]) => unknown;

interface Topic {
  readonly what: string;
  readonly members: Members;
}

/** `vm.pci`, which is a function. */
const PCI_ACCESS: Topic = {
  what: 'PCI: functions, and devices that come and go',
  members: {
    '()': ["await vm.pci('vda'), await vm.pci()", 'one function by its name or address, or all'],
    plug: ["await vm.pci.plug('virtio-blk', { file: 'a.qcow2' })", 'plugs a device; help plug lists types and options'],
    devices: ['vm.pci.devices', 'devices that come and go, also those of the start; each has unplug()'],
    ports: ['vm.pci.ports', 'hot-plug ports and slots, and what is in them'],
  },
};

const isPciAccess = (value: unknown) => typeof value === 'function' && 'ports' in value && 'plug' in value;

/** What there is to say of a value and its members. */
export const topicOf = (value: unknown): Topic | undefined =>
  isPciAccess(value) ? PCI_ACCESS : HELP.find(([type]) => value instanceof type)?.[1];

/** By class. Every public member has its line; a test holds that. */
export const HELP: readonly (readonly [Type, Topic])[] = [
  [
    Vm,
    {
      what: 'the machine',
      members: {
        name: ['vm.name', 'its name'],
        state: ['vm.state', 'created, running, paused, ended or closed'],
        cpus: ['vm.cpus', 'vCPUs by index; vm.cpus[0].where()'],
        disks: ['vm.disks.vda', 'disks by name: size, medium, limits, statistics, unplug'],
        nets: ['vm.nets.net0', 'network cards by name: link, network, limits, statistics, unplug'],
        nvdimm: ['vm.nvdimm', 'persistent memory on files: plug, list'],
        memory: ['vm.memory', 'RAM: read and search by guest-physical address'],
        kernel: ['vm.kernel', "the guest's kernel, from its memory: log, symbols, page tables"],
        journal: ['vm.journal', 'what was done, and how it is taken back'],
        machine: ['vm.machine', 'the MachineClient below all this'],
        plugged: ['vm.plugged', 'what came and what can go, and the room that there is'],
        plug: ["await vm.plug({ kind: 'cpu' })", 'plugs a device; resolves when the guest has it online'],
        unplug: [
          "await vm.unplug('dimm0')",
          'takes a device out, when the guest lets go; { force: true } takes one of PCI at once',
        ],
        has: ["vm.has('dimm0')", 'is a device that came or can go in the machine?'],
        change: [
          "await vm.change((machine) => machine.plug({ kind: 'cpu' }))",
          'asks the machine itself; nothing is written down',
        ],
        requests: ['await vm.requests()', 'what was plugged and unplugged, stage by stage'],
        describe: ['await vm.describe()', 'the machine as it is now, as machine.yaml'],
        apply: ["await vm.apply('machine.yaml', { dryRun: true })", 'what leads to that description, and does it'],
        info: ["await vm.info('pci'), await vm.info('queues', 'vda')", 'tables; help info lists the topics'],
        pci: [
          "await vm.pci('vda'), vm.pci.plug('virtio-blk', { file: 'a.qcow2' })",
          'a PCI function by name or address; plugs a device; vm.pci.ports and vm.pci.devices',
        ],
        acpi: ["await vm.acpi('DSDT')", 'an ACPI table as the guest has it; all without'],
        pause: ['await vm.pause()', 'stops every vCPU'],
        resume: ['await vm.resume()', 'lets them go on'],
        reset: ['await vm.reset()', 'hard reset, as by the button'],
        powerButton: ['await vm.powerButton()', 'presses the ACPI power button; what comes of it is up to the guest'],
        nmi: ['await vm.nmi()', 'sends an NMI to every vCPU'],
        quit: ['await vm.quit()', 'ends the machine at once'],
        sh: [
          "await vm.sh('lscpu')",
          'runs a command in the guest: { status, output }; what it prints, and itself, goes through a serial port, ' +
            'in the lab some 4 kB a second: megabytes are for a disk or the network',
        ],
        dmesg: ['await vm.dmesg(20)', "the kernel's log, from its memory; the guest need not answer"],
        symbol: ["await vm.symbol('jiffies_64')", "a symbol's address, or the symbol at an address"],
        read: ["await vm.read('jiffies_64', 8)", 'kernel-virtual memory, from an address or a symbol'],
        walk: ['await vm.walk(address, 0)', "the page tables' way to an address: the kernel's, or a vCPU's"],
      },
    },
  ],
  [
    Cpu,
    {
      what: 'a vCPU',
      members: {
        index: ['cpu.index', 'its number'],
        report: ['await cpu.report()', 'state, exits by reason, thread'],
        registers: ['await cpu.registers()', 'hexadecimal strings by name'],
        where: ['await cpu.where()', "the kernel's symbol at its rip"],
        unplug: ['await cpu.unplug()', 'takes it out'],
        read: ['await cpu.read(address, 64)', 'memory as its page tables have it'],
        walk: ['await cpu.walk(address)', "its page tables' way to an address"],
      },
    },
  ],
  [
    Memory,
    {
      what: 'guest-physical memory',
      members: {
        size: ['vm.memory.size', 'bytes, with DIMMs'],
        balloon: ["await vm.memory.balloon('128M')", 'what is in the balloon; with a size, asks for so much'],
        dirtyRate: ['await vm.memory.dirtyRate(1)', 'watches for so many seconds which pages the guest writes to'],
        dimms: ['vm.memory.dimms', 'DIMMs that are plugged; each has unplug()'],
        resize: ["await vm.memory.resize('vm0', '512M')", 'has the guest plug so much of a virtio-mem device'],
        virtio: ['vm.memory.virtio', 'virtio-mem devices; each has resize(), plugged and requested'],
        plug: ["await vm.memory.plug('1G', { node: 1 })", 'plugs a DIMM'],
        read: ['await vm.memory.read(0x1000, 64)', 'bytes at a guest-physical address'],
        search: ["await vm.memory.search('text')", 'guest-physical addresses of text or bytes'],
      },
    },
  ],
  [
    DirtyRate,
    {
      what: 'pages that the guest wrote to in a time; sizes in bytes',
      members: {
        bytesPerSecond: ['rate.bytesPerSecond', 'in pages that were written to'],
        dirty: ['rate.dirty', 'pages that were written to, all together'],
        milliseconds: ['rate.milliseconds', 'how long was looked at'],
        ranges: ['rate.ranges', 'each range of RAM: address, size, dirty'],
      },
    },
  ],
  [
    Cpus,
    {
      what: 'vCPUs by index',
      members: {
        count: ['vm.cpus.count', 'how many there are'],
        add: ['await vm.cpus.add(2)', 'plugs vCPUs; needs room: --cpus 1,max=8'],
        remove: ['await vm.cpus.remove(1)', 'takes the last ones out'],
      },
    },
  ],
  [
    Disk,
    {
      what: 'a disk',
      members: {
        name: ['disk.name', 'its name'],
        statistics: ['await disk.statistics()', 'requests, bytes and latency by operation'],
        unplug: ['await disk.unplug()', 'takes it out'],
        throttle: ['await disk.throttle({ iops: 500, bps: 10e6 })', 'limits; {} for none'],
        resize: ["await disk.resize('2G')", 'another size; a smaller one needs { shrink: true } and loses the rest'],
        change: ["await disk.change('other.img')", 'another medium, while the guest does not use the disk'],
      },
    },
  ],
  [
    Net,
    {
      what: 'a network card',
      members: {
        name: ['net.name', 'its name'],
        statistics: ['await net.statistics()', 'its network; packets, bytes, losses and waits by direction'],
        throttle: ['await net.throttle({ pps: 1000, bpsRx: 10e6 })', 'limits; {} for none'],
        link: ['await net.link(false)', 'pulls the cable out, or puts it in'],
        backend: ["await net.backend({ type: 'tap', ifname: 'tap0' })", 'plugs it into another network'],
        forward: ['await net.forward({ hostPort: 2222, guestPort: 22 })', "leads a host's port into the guest"],
        unforward: ['await net.unforward(2222)', 'ends that'],
        unplug: ['await net.unplug()', 'takes it out'],
      },
    },
  ],
  [
    Dimm,
    {
      what: 'a DIMM',
      members: {
        id: ['dimm.id', 'its name'],
        device: ['dimm.device', 'size, slot, address, node, backend'],
        unplug: ['await dimm.unplug()', 'takes it out'],
      },
    },
  ],
  [
    VirtioMem,
    {
      what: 'memory that the guest plugs and unplugs by blocks, as it was when it was looked up',
      members: {
        id: ['device.id', 'its name'],
        plugged: ['device.plugged', 'bytes that the guest has plugged'],
        requested: ['device.requested', 'bytes that it is asked to have plugged'],
        report: ['device.report', 'size, block, address, node, requests by kind'],
        resize: ["await device.resize('512M')", 'asks for so much, and resolves when it is so'],
      },
    },
  ],
  [
    PluggedDevice,
    {
      what: 'a device of PCI that can come and go',
      members: {
        id: ['device.id', 'its name'],
        type: ['device.type', 'virtio-blk, virtio-net and so on'],
        port: ['device.port', 'where it stands'],
        device: ['device.device', 'all that is known of it'],
        unplug: ['await device.unplug()', 'takes it out; { force: true } at once'],
      },
    },
  ],
  [
    Nvdimms,
    {
      what: 'persistent memory on files',
      members: {
        list: ['vm.nvdimm.list', 'NVDIMMs that there are; each has unplug()'],
        get: ["vm.nvdimm.get('nvdimm0')", 'one by its id'],
        plug: ["await vm.nvdimm.plug({ file: 'pm.img', size: '256M' })", 'plugs one; labelSize: 131072 for namespaces'],
      },
    },
  ],
  [
    Nvdimm,
    {
      what: 'an NVDIMM',
      members: {
        id: ['nvdimm.id', 'its name'],
        device: ['nvdimm.device', 'file, size, slot, address, flushes so far'],
        unplug: ['await nvdimm.unplug()', 'takes it out, when the guest has let go'],
      },
    },
  ],
  [
    PciDevice,
    {
      what: 'a PCI function',
      members: {
        name: ['device.name', 'its name'],
        address: ['device.address', 'bus:device.function'],
        config: ['device.config', 'its configuration space'],
        report: ['device.report', 'BARs, MSI-X table, virtqueues'],
        decode: ['device.decode()', 'its configuration space in words and bytes, BARs, MSI-X table'],
        queues: ['await device.queues()', "virtqueues with their descriptors, from the guest's memory"],
      },
    },
  ],
  [
    AcpiTable,
    {
      what: 'an ACPI table',
      members: {
        signature: ['table.signature', 'its four letters'],
        address: ['table.address', 'where it is, guest-physical'],
        bytes: ['table.bytes', 'all of it'],
        revision: ['table.revision', 'of its layout'],
        oemId: ['table.oemId', 'who made it'],
        valid: ['table.valid', 'is its checksum right?'],
        dump: ['table.dump()', 'its bytes'],
        asl: ['await table.asl()', 'AML as ASL, others field by field; needs iasl'],
      },
    },
  ],
  [
    Journal,
    {
      what: 'what was done to the machine, from any terminal',
      members: {
        undo: ['await vm.journal.undo()', 'takes the last action back'],
        redo: ['await vm.journal.redo()', 'does it again'],
        last: ['vm.journal.last', 'what undo takes back, and what redo does again'],
        lines: ['vm.journal.lines', 'one line an action'],
        script: ['vm.journal.script', 'all of it, for nemu run --script'],
        save: ["vm.journal.save('x.ts')", 'writes that into a file'],
        idle: ['await vm.journal.idle()', 'resolves when no action is under way'],
        do: ['await vm.journal.do({ code, run, redo, undo })', 'does an action and writes it down'],
      },
    },
  ],
  [
    Kernel,
    {
      what: "the guest's kernel, looked at from outside",
      members: {
        log: ['await vm.kernel.log()', 'lines of its log'],
        symbols: ['await vm.kernel.symbols()', 'all of them: find, search, describe'],
        symbol: ["await vm.kernel.symbol('schedule')", "one by name, a module's too"],
        modules: ['await vm.kernel.modules()', 'those that are loaded, by address'],
        moduleSymbols: ['await vm.kernel.moduleSymbols()', 'all of those that are loaded'],
        describe: ['await vm.kernel.describe(0xffffffff81000000n)', 'name+offset of an address'],
        read: ['await vm.kernel.read(address, 64)', 'bytes at a virtual address'],
        walk: ['await vm.kernel.walk(address)', "the page tables' way to an address"],
      },
    },
  ],
];

/**
 * Help on a value, as `value?` shows it; undefined for what has none.
 * @param member of what it is, where it is one of something: `disks` of `vm`.
 */
export function helpOn(value: unknown, member?: { readonly of: unknown; readonly name: string }): string | undefined {
  const topic = topicOf(value);
  if (topic) {
    return [topic.what, ...twoColumns(Object.values(topic.members))].join('\n');
  }
  for (const [type, { members }] of HELP) {
    const method = Object.entries(members).find(
      ([name]) => Object.getOwnPropertyDescriptor(type.prototype, name)?.value === value,
    );
    if (typeof value === 'function' && method) return method[1].join('\n  ');
  }
  const members = member && topicOf(member.of)?.members;
  return members && Object.hasOwn(members, member.name) ? members[member.name].join('\n  ') : undefined;
}
