/** Lines of QEMU's human monitor, as far as there is something to say: `human-monitor-command`. */

import { queryBlock, queryBlockStats } from './commands/block.ts';
import { queryChardev } from './commands/chardev.ts';
import { cpusFast, hotpluggableCpus } from './commands/cpus.ts';
import { statusOf } from './commands/machine.ts';
import { balloonSize, memoryDevices, memorySummary } from './commands/memory.ts';
import { pciViews } from './commands/pci.ts';
import { findObject, pciDriver, type QomNode } from './commands/qom.ts';
import { toQmpError } from './errors.ts';
import { CHANGE_ACTIONS } from './human_actions.ts';
import { DIRTY_RATE_ACTIONS, tellDirtyRate } from './human_dirty_rate.ts';
import { tellLapic, tellPic } from './human_interrupts.ts';
import { done, type Entry, expression, hex, optionsOf, run, UsageError, wanted } from './human_line.ts';
import { MEMORY_ACTIONS } from './human_memory.ts';
import type { Monitor } from './monitor.ts';
import type { PciView } from './pci_view.ts';
import { VERSION } from './version.ts';

const MiB = 2 ** 20;

const INFO: Readonly<Record<string, Entry>> = {
  balloon: {
    help: 'show balloon information',
    tell: async (monitor) => [`balloon: actual=${Math.floor((await balloonSize(monitor)) / MiB)}`],
  },
  block: { help: 'show disks', tell: block },
  blockstats: { help: 'show what each disk did', tell: blockstats },
  chardev: {
    help: 'show consoles',
    tell: (monitor) => queryChardev(monitor).map(({ label, filename }) => `${label}: filename=${filename}`),
  },
  cpus: {
    help: 'show vCPUs and their threads',
    tell: async (monitor, _words, cpu) =>
      (await cpusFast(monitor)).map(
        (each) => `${each['cpu-index'] === cpu ? '*' : ' '} CPU #${each['cpu-index']}: thread_id=${each['thread-id']}`,
      ),
  },
  dirty_rate: { help: 'show how fast the guest writes to its memory', tell: tellDirtyRate },
  'hotpluggable-cpus': { help: 'show places for vCPUs', tell: places },
  kvm: { help: 'show KVM information', tell: () => ['kvm support: enabled'] },
  lapic: { help: "show a vCPU's local APIC; with a number, that of an APIC id", tell: tellLapic },
  'memory-devices': { help: 'show DIMMs', tell: dimms },
  memory_size_summary: {
    help: 'show bytes at boot and plugged',
    tell: async (monitor) => {
      const summary = await memorySummary(monitor);
      return [`base memory: ${summary['base-memory']}`, `plugged memory: ${summary['plugged-memory']}`];
    },
  },
  mtree: { help: 'show what the guest finds at which address', tell: mtree },
  numa: { help: 'show nodes of processors and memory', tell: numa },
  name: { help: "show the machine's name", tell: ({ machine }) => [machine.description.name] },
  network: { help: 'show network cards', tell: network },
  pci: { help: 'show PCI functions', tell: pci },
  pic: { help: 'show the I/O APIC and the PICs', tell: tellPic },
  'qom-tree': { help: 'show the tree of objects, or what is below a path', tell: qomTree },
  qtree: { help: 'show devices by bus', tell: qtree },
  registers: { help: "show a vCPU's registers; with -a, of all", tell: registers },
  status: { help: 'show what the machine does', tell: status },
  uuid: { help: "show the machine's UUID", tell: () => ['00000000-0000-0000-0000-000000000000'] },
  version: { help: 'show whose monitor this is', tell: () => [VERSION.package] },
};

const ACTIONS: Readonly<Record<string, Entry>> = {
  balloon: {
    help: 'target in MiB -- ask the guest to make do with so much',
    tell: (monitor, [size]) => done(run(monitor, 'balloon', { value: Number(expression(size)) * MiB })),
  },
  cont: { help: 'go on', alone: true, tell: (monitor) => done(run(monitor, 'cont')) },
  device_add: {
    help: 'driver[,property=value…] -- plug a device',
    tell: (monitor, words) => {
      const { first, pairs } = optionsOf(words.join(' '));
      return done(run(monitor, 'device_add', { driver: first, ...Object.fromEntries(pairs) }));
    },
  },
  device_del: {
    help: 'id -- unplug a device',
    tell: (monitor, [id]) => done(run(monitor, 'device_del', { id: wanted('device_del', id) })),
  },
  info: { help: 'topic -- show information; `info` alone lists the topics', tell: info },
  nmi: { help: 'send an NMI to every vCPU', alone: true, tell: (monitor) => done(run(monitor, 'inject-nmi')) },
  quit: { help: 'end the machine', alone: true, tell: (monitor) => done(run(monitor, 'quit')) },
  stop: { help: 'stop', alone: true, tell: (monitor) => done(run(monitor, 'stop')) },
  system_powerdown: {
    help: 'press the power button',
    alone: true,
    tell: (monitor) => done(run(monitor, 'system_powerdown')),
  },
  system_reset: { help: 'reset', alone: true, tell: (monitor) => done(run(monitor, 'system_reset')) },
  ...CHANGE_ACTIONS,
  ...MEMORY_ACTIONS,
  ...DIRTY_RATE_ACTIONS,
};
/** These change nothing. */
const LOOKING = new Set(['info', 'x', 'xp', ...Object.keys(DIRTY_RATE_ACTIONS)]);
const ALIASES: Readonly<Record<string, string>> = { c: 'cont', s: 'stop', q: 'quit', '?': 'help' };

/** A command with its other names, as QEMU writes it: `stop|s`. */
const aliased = (name: string) => [name, ...Object.keys(ALIASES).filter((alias) => ALIASES[alias] === name)].join('|');
const tryHelp = (name: string) => `Try "help ${name}" for more information`;

/** @returns what the monitor prints, errors and all: this is for people. */
export async function humanMonitor(monitor: Monitor, line: string, cpu = 0): Promise<string> {
  const [word = '', ...words] = line.trim().split(/\s+/);
  if (word === '') return '';
  const name = Object.hasOwn(ALIASES, word) ? ALIASES[word] : word;
  if (name === 'help') return lines(help(words[0]));
  if (!Object.hasOwn(ACTIONS, name)) return lines([`unknown command: '${word}'`]);
  const [shown, alone] = [aliased(name), ACTIONS[name].alone && words.length > 0];
  if (alone) return lines([`${shown}: extraneous characters at the end of line`, tryHelp(name)]);
  if (!LOOKING.has(name)) monitor.machine.note(`QMP: ${[name, ...words].join(' ')}`);
  try {
    return lines(await ACTIONS[name].tell(monitor, words, cpu));
  } catch (error) {
    if (error instanceof UsageError) return lines([error.message, tryHelp(name)]);
    return lines([`Error: ${toQmpError(error).message}`]);
  }
}

function help(wanted: string | undefined): string[] {
  const entries = Object.entries(ACTIONS).filter(([name]) => wanted === undefined || name === wanted);
  return list(Object.fromEntries(entries), '');
}

const lines = (list: readonly string[]) => list.map((each) => `${each}\r\n`).join('');

const list = (entries: Readonly<Record<string, Entry>>, before: string) =>
  Object.entries(entries).map(([name, { help }]) => `${before}${name} ${help.includes(' -- ') ? '' : ' -- '}${help}`);

async function info(monitor: Monitor, [topic, ...words]: readonly string[], cpu: number): Promise<string[]> {
  if (topic === undefined) return list(INFO, 'info ');
  if (!Object.hasOwn(INFO, topic)) return [`unknown command: 'info ${topic}'`];
  return INFO[topic].tell(monitor, words, cpu);
}

function status(monitor: Monitor): string[] {
  const { status: state, running } = statusOf(monitor);
  return [`VM status: ${running ? 'running' : `paused${state === 'paused' ? '' : ` (${state})`}`}`];
}

async function block(monitor: Monitor): Promise<string[]> {
  return (await queryBlock(monitor)).flatMap(({ device, qdev, inserted }) => [
    `${device}: ${inserted.file} (${inserted.drv}${inserted.ro ? ', read-only' : ''})`,
    `    Attached to:      ${qdev}`,
    `    Cache mode:       writeback${inserted.cache.direct ? ', direct' : ''}`,
  ]);
}

async function blockstats(monitor: Monitor): Promise<string[]> {
  const shown = [
    ...(['rd_bytes', 'wr_bytes', 'rd_operations', 'wr_operations', 'flush_operations'] as const),
    ...(['wr_total_time_ns', 'rd_total_time_ns', 'flush_total_time_ns', 'rd_merged', 'wr_merged'] as const),
  ];
  return (await queryBlockStats(monitor)).map(
    ({ device, stats }) => `${device}: ${shown.map((name) => `${name}=${stats[name]}`).join(' ')}`,
  );
}

async function places(monitor: Monitor): Promise<string[]> {
  const found = await hotpluggableCpus(monitor);
  return [
    'Hotpluggable CPUs:',
    ...found.flatMap(({ type, props, ...rest }) => [
      `  type: "${type}"`,
      `  vcpus_count: "${rest['vcpus-count']}"`,
      ...('qom-path' in rest ? [`  qom_path: "${rest['qom-path']}"`] : []),
      '  CPUInstance Properties:',
      ...Object.entries(props).map(([name, value]) => `    ${name}: "${value}"`),
    ]),
  ];
}

type MemoryDeviceData = Awaited<ReturnType<typeof memoryDevices>>[number]['data'];

async function dimms(monitor: Monitor): Promise<string[]> {
  return (await memoryDevices(monitor)).flatMap(({ type, data }) => {
    if (type === 'virtio-mem' || type === 'virtio-pmem') {
      const rows = Object.entries({ ...data, memaddr: hex(data.memaddr) }).filter(([name]) => name !== 'id');
      return [`Memory device [${type}]: "${data.id}"`, ...rows.map(([name, value]) => `  ${name}: ${value}`)];
    }
    return dimmRows(type, data);
  });
}

function dimmRows(type: string, data: Exclude<MemoryDeviceData, { memaddr: number }>): string[] {
  return [
    `Memory device [${type}]: "${data.id}"`,
    `  addr: ${hex(data.addr)}`,
    `  slot: ${data.slot}`,
    `  node: ${data.node}`,
    `  size: ${data.size}`,
    `  memdev: ${data.memdev}`,
    `  hotplugged: ${data.hotplugged}`,
    `  hotpluggable: ${data.hotpluggable}`,
  ];
}

async function mtree({ machine }: Monitor): Promise<string[]> {
  const [{ regions }, ram] = await Promise.all([machine.counters(), machine.memoryMap()]);
  const row = (base: number, size: number, name: string) =>
    `  ${hex(base, 16).slice(2)}-${hex(base + size - 1, 16).slice(2)}: ${name}`;
  const of = (space: 'pio' | 'mmio') =>
    regions.filter((each) => each.space === space).map((each) => ({ ...each, at: each.base }));
  const memory = [
    ...ram.map(({ address, size, dimm }) => ({ at: address, size, name: dimm ?? 'ram' })),
    ...of('mmio'),
  ].sort((a, b) => a.at - b.at);
  return [
    'memory',
    ...memory.map(({ at, size, name }) => row(at, size, name)),
    '',
    'I/O',
    ...of('pio')
      .sort((a, b) => a.at - b.at)
      .map(({ at, size, name }) => row(at, size, name)),
  ];
}

/** Cards with what they are plugged into, and back ends that no card has. */
async function network({ machine, names, netdevs }: Monitor): Promise<string[]> {
  const backEnd = (type: string, text: readonly string[]) => ['index=0', `type=${type}`, ...text].join(',');
  const user = (net: string | undefined, restrict: boolean | undefined) => [
    `net=${(net ?? '10.0.2.0').replace(/\/.*/, '')}`,
    `restrict=${restrict ? 'on' : 'off'}`,
  ];
  const cards = (await machine.nets()).flatMap((card) => {
    const { name, mac, type, ifname = '', link } = card;
    const mine = netdevs.all.find(({ usedBy }) => usedBy === name)?.id ?? type;
    const end = backEnd(type, type === 'user' ? user(card.net, card.restrict) : [`ifname=${ifname}`]);
    const out = link ? '' : ',link=off';
    return [`${names.peer(name)}: index=0,type=nic,model=virtio-net-pci,macaddr=${mac}${out}`, ` \\ ${mine}: ${end}`];
  });
  const unused = netdevs.all.filter(({ usedBy }) => usedBy === undefined);
  return [
    ...cards,
    ...unused.map(({ id, net }) => {
      const own = net.type === 'user' ? user(net.net, net.restrict) : [`ifname=${net.ifname ?? ''}`];
      return `${id}: ${backEnd(net.type, own)}`;
    }),
  ];
}

async function numa(monitor: Monitor): Promise<string[]> {
  const { description } = monitor.machine;
  const { cpus, memory } = await monitor.machine.plugged();
  const nodes = description.numa?.nodes ?? [{ memory: memory.boot }];
  const mebi = (bytes: number) => Math.floor(bytes / MiB);
  return [
    `${nodes.length} nodes`,
    ...nodes.flatMap((node, index) => {
      const own = cpus.present.filter((each) => (each.node ?? 0) === index).map((each) => ` ${each.index}`);
      const plugged = [...memory.dimms.filter((each) => each.node === index)].reduce((sum, { size }) => sum + size, 0);
      const blocks = memory.virtio.filter((each) => each.node === index).reduce((sum, each) => sum + each.plugged, 0);
      return [
        `node ${index} cpus:${own.join('')}`,
        `node ${index} size: ${mebi(node.memory + plugged + blocks)} MB`,
        `node ${index} plugged: ${mebi(plugged + blocks)} MB`,
      ];
    }),
  ];
}

async function qomTree(monitor: Monitor, [path = '/machine']: readonly string[]): Promise<string[]> {
  const show = (name: string, node: QomNode, indent: string): string[] => [
    `${indent}/${name} (${node.type})`,
    ...Object.entries(node.children).flatMap(([child, below]) => show(child, below, `${indent}  `)),
  ];
  try {
    return show(path.slice(path.lastIndexOf('/') + 1), await findObject(monitor, path), '');
  } catch {
    return [`Path '${path}' could not be resolved.`];
  }
}

async function pci(monitor: Monitor): Promise<string[]> {
  const hex4 = (value = 0) => value.toString(16).padStart(4, '0');
  const describe = (view: PciView): string[] => {
    const { id } = view;
    const name = view.className ?? `Class ${String(view.class).padStart(4, '0')}`;
    return [
      `  Bus ${String(view.bus).padStart(2)}, device ${String(view.slot).padStart(3)}, function ${view.function}:`,
      `    ${name}: PCI device ${hex4(id.vendor)}:${hex4(id.device)}`,
      ...('subsystem' in id ? [`      PCI subsystem ${hex4(id['subsystem-vendor'])}:${hex4(id.subsystem)}`] : []),
      ...(view.irqPin > 0 ? [`      IRQ ${view.irq}, pin ${'ABCD'[view.irqPin - 1] ?? '?'}`] : []),
      ...view.regions.map(({ bar, type, address, size, ...memory }) => {
        const kind = 'mem_type_64' in memory && memory.mem_type_64 ? '64' : '32';
        const what = type === 'io' ? 'I/O' : `${kind} bit ${memory.prefetch ? 'prefetchable ' : ''}memory`;
        const place = address < 0 ? 'nowhere' : `at ${hex(address)} [${hex(address + size - 1)}]`;
        return `      BAR${bar}: ${what} ${place}.`;
      }),
      `      id "${monitor.names.peer(view.report.name)}"`,
    ];
  };
  return (await pciViews(monitor)).flatMap(describe);
}

async function qtree(monitor: Monitor): Promise<string[]> {
  const all = await pciViews(monitor);
  const show = (bridge: string | undefined, indent: string): string[] =>
    all
      .filter(({ report }) => report.bridge === bridge)
      .flatMap((view) => [
        `${indent}dev: ${pciDriver(view)}, id "${monitor.names.peer(view.report.name)}"`,
        `${indent}  addr = ${view.slot.toString(16).padStart(2, '0')}.${view.function}`,
        ...(view.isBridge ? [`${indent}  bus: ${view.report.name}`, ...show(view.report.name, `${indent}    `)] : []),
      ]);
  return ['bus: main-system-bus', '  bus: pcie.0', ...show(undefined, '    ')];
}

async function registers({ machine }: Monitor, words: readonly string[], cpu: number): Promise<string[]> {
  const wanted = words[0] !== undefined && /^\d+$/.test(words[0]) ? Number(words[0]) : cpu;
  const shown = (await machine.inspect()).filter(({ index }) => words.includes('-a') || index === wanted);
  if (shown.length === 0) return [`CPU#${wanted} not available`];
  return shown.flatMap(({ index, registers: values = {} }) => {
    const cells = Object.entries(values).map(([name, value]) => `${name.toUpperCase()}=${value.replace(/^0x/, '')}`);
    const rows = Array.from({ length: Math.ceil(cells.length / 4) }, (_, row) =>
      cells.slice(4 * row, 4 * row + 4).join(' '),
    );
    return ['', `CPU#${index}`, ...rows];
  });
}
