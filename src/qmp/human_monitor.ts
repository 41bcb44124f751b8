/** Lines of QEMU's human monitor, as far as there is something to say: `human-monitor-command`. */

import { queryBlock, queryBlockStats } from './commands/block.ts';
import { queryChardev } from './commands/chardev.ts';
import { cpusFast, hotpluggableCpus } from './commands/cpus.ts';
import { deviceAdd, deviceDel } from './commands/device.ts';
import { statusOf } from './commands/machine.ts';
import { balloonSize, memoryDevices, memorySummary } from './commands/memory.ts';
import { pciViews } from './commands/pci.ts';
import { pciDriver } from './commands/qom.ts';
import { toQmpError } from './errors.ts';
import type { Monitor } from './monitor.ts';
import type { PciView } from './pci_view.ts';
import { VERSION } from './version.ts';

type Teller = (monitor: Monitor, words: readonly string[], cpu: number) => Promise<string[]> | string[];
interface Entry {
  readonly help: string;
  readonly tell: Teller;
}

const hex = (value: number, digits = 0) => `0x${value.toString(16).padStart(digits, '0')}`;
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
  'hotpluggable-cpus': { help: 'show places for vCPUs', tell: places },
  kvm: { help: 'show KVM information', tell: () => ['kvm support: enabled'] },
  'memory-devices': { help: 'show DIMMs', tell: dimms },
  memory_size_summary: {
    help: 'show bytes at boot and plugged',
    tell: async (monitor) => {
      const summary = await memorySummary(monitor);
      return [`base memory: ${summary['base-memory']}`, `plugged memory: ${summary['plugged-memory']}`];
    },
  },
  mtree: { help: 'show what the guest finds at which address', tell: mtree },
  name: { help: "show the machine's name", tell: ({ machine }) => [machine.description.name] },
  network: { help: 'show network cards', tell: network },
  pci: { help: 'show PCI functions', tell: pci },
  qtree: { help: 'show devices by bus', tell: qtree },
  registers: { help: "show a vCPU's registers; with -a, of all", tell: registers },
  status: { help: 'show what the machine does', tell: status },
  uuid: { help: "show the machine's UUID", tell: () => ['00000000-0000-0000-0000-000000000000'] },
  version: { help: 'show whose monitor this is', tell: () => [VERSION.package] },
};

const done = async (action: Promise<unknown>): Promise<string[]> => {
  await action;
  return [];
};

/** What acts: the same as the command of the protocol. */
const run = (monitor: Monitor, name: string, args = {}) =>
  monitor.execute(name, args, { negotiated: true, negotiate: () => {} });

const ACTIONS: Readonly<Record<string, Entry>> = {
  balloon: {
    help: 'target in MiB -- ask the guest to make do with so much',
    tell: (monitor, [size]) => done(balloonSize(monitor, Number(size) * MiB)),
  },
  cont: { help: 'go on', tell: (monitor) => done(run(monitor, 'cont')) },
  device_add: {
    help: 'driver[,property=value…] -- plug a device',
    tell: (monitor, words) => done(deviceAdd(monitor, deviceOptions(words.join(' ')))),
  },
  device_del: { help: 'id -- unplug a device', tell: (monitor, [id = '']) => done(deviceDel(monitor, id)) },
  info: { help: 'topic -- show information; `info` alone lists the topics', tell: info },
  nmi: { help: 'send an NMI to every vCPU', tell: (monitor) => done(run(monitor, 'inject-nmi')) },
  quit: { help: 'end the machine', tell: (monitor) => done(run(monitor, 'quit')) },
  stop: { help: 'stop', tell: (monitor) => done(run(monitor, 'stop')) },
  system_powerdown: { help: 'press the power button', tell: (monitor) => done(run(monitor, 'system_powerdown')) },
  system_reset: { help: 'reset', tell: (monitor) => done(run(monitor, 'system_reset')) },
};
const ALIASES: Readonly<Record<string, string>> = { c: 'cont', s: 'stop', q: 'quit', '?': 'help' };

/** @returns what the monitor prints, errors and all: this is for people. */
export async function humanMonitor(monitor: Monitor, line: string, cpu = 0): Promise<string> {
  const [word = '', ...words] = line.trim().split(/\s+/);
  if (word === '') return '';
  const name = Object.hasOwn(ALIASES, word) ? ALIASES[word] : word;
  if (name === 'help') return lines(list(ACTIONS, ''));
  if (!Object.hasOwn(ACTIONS, name)) return lines([`unknown command: '${word}'`]);
  try {
    return lines(await ACTIONS[name].tell(monitor, words, cpu));
  } catch (error) {
    return lines([`Error: ${toQmpError(error).message}`]);
  }
}

const lines = (list: readonly string[]) => list.map((each) => `${each}\r\n`).join('');

const list = (entries: Readonly<Record<string, Entry>>, before: string) =>
  Object.entries(entries).map(([name, { help }]) => `${before}${name} ${help.includes(' -- ') ? '' : ' -- '}${help}`);

async function info(monitor: Monitor, [topic, ...words]: readonly string[], cpu: number): Promise<string[]> {
  if (topic === undefined) return list(INFO, 'info ');
  if (!Object.hasOwn(INFO, topic)) return [`unknown command: 'info ${topic}'`];
  return INFO[topic].tell(monitor, words, cpu);
}

/** `pc-dimm,id=d1,memdev=m1` */
function deviceOptions(text: string): Record<string, string> {
  const [driver, ...rest] = text.split(',');
  const pairs = rest.map((item) => {
    const equals = item.indexOf('=');
    return equals < 0 ? [item, 'on'] : [item.slice(0, equals), item.slice(equals + 1)];
  });
  return { driver, ...Object.fromEntries(pairs) };
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

function network({ machine }: Monitor): string[] {
  return machine.description.nets.map(({ id, type, mac }, index) =>
    [`${id ?? `net${index}`}: type=nic,model=virtio-net-pci`, ...(mac ? [`macaddr=${mac}`] : []), `peer=${type}`].join(
      ',',
    ),
  );
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
