/** Actions that change the machine. */
import { memberCode } from '../../client/code.ts';
import {
  balloonChange,
  type Change,
  diskMedium,
  diskResize,
  diskThrottle,
  forceUnplug,
  memoryChange,
  netThrottle,
  type Part,
  partMeant,
  toggleLink,
  whyNotPart,
} from '../changes.ts';
import type { PaneName } from '../layout.ts';
import type { Station } from '../station.ts';
import { type Action, ended, notRunning } from './action.ts';

interface PartAction extends Pick<Action, 'id' | 'keys' | 'title' | 'help' | 'words'> {
  readonly panes: readonly PaneName[];
  readonly part: Part;
  readonly change: (station: Station, name: string) => Change;
  /** @param name of the part that is meant, where that is clear. */
  readonly repl: (name: string | undefined) => string;
  readonly qmp?: (name: string | undefined) => string;
}

/** A form that changes a part of the machine: the one that is chosen, or one that is chosen then. */
function part({ part: what, change, repl, qmp, ...action }: PartAction): Action {
  return {
    ...action,
    ...{ anywhere: true, changes: true, asks: true },
    repl: (station) => repl(partMeant(station, what)),
    ...(qmp && { qmp: (station: Station) => qmp(partMeant(station, what)) }),
    disabled: (station) => notRunning(station) ?? whyNotPart(station, what, action.panes),
    run: (station) =>
      station.dialogs.withPart(what, action.title, (name) => station.dialogs.fillInChange(change(station, name))),
  };
}

export const MACHINE: readonly Action[] = [
  {
    id: 'pause',
    keys: ['p'],
    title: 'pause or resume',
    help: 'stops every vCPU, or lets them go on',
    words: 'stop cont continue freeze',
    footer: 'pause',
    repl: ({ machine }) => (machine.state === 'paused' ? 'await vm.resume()' : 'await vm.pause()'),
    qmp: ({ machine }) => (machine.state === 'paused' ? 'cont' : 'stop'),
    changes: true,
    disabled: ended,
    run: (station) => (station.machine.state === 'paused' ? station.vm.resume() : station.vm.pause()),
  },
  {
    id: 'power-button',
    keys: ['o'],
    title: 'press the power button',
    help: 'the guest is asked to power off (ACPI)',
    words: 'shutdown off',
    repl: () => 'await vm.powerButton()',
    qmp: () => 'system_powerdown',
    changes: true,
    disabled: notRunning,
    confirm: () => 'Press the power button? The guest powers off, if it heeds it.',
    run: (station) => station.vm.powerButton(),
  },
  {
    id: 'plug',
    keys: ['a'],
    asks: true,
    title: 'plug a device',
    help: 'chooses a device, fills its options in, and follows the stages',
    words: 'add device_add hotplug cpu memory dimm disk',
    footer: 'plug',
    repl: () => 'await vm.plug({…})',
    qmp: () => 'device_add',
    changes: true,
    disabled: notRunning,
    run: (station) => station.dialogs.choosePlug(),
  },
  {
    id: 'unplug',
    keys: ['d'],
    panes: ['vcpus', 'pci', 'memory'],
    title: 'unplug what is chosen',
    help: 'the guest is asked to let go of it',
    words: 'remove device_del',
    footer: 'unplug',
    repl: (station) => `await vm.unplug('${station.chosen ?? 'ID'}')`,
    qmp: (station) => `device_del id=${station.chosen ?? 'ID'}`,
    changes: true,
    disabled: (station) => notRunning(station) ?? station.whyNotUnplug,
    confirm: (station) => `Unplug ${station.chosen}? The guest must let go of it first.`,
    run: (station) => station.unplug(),
  },
  {
    id: 'force-unplug',
    keys: ['D'],
    panes: ['pci'],
    anywhere: true,
    asks: true,
    title: 'take out by force',
    help: 'at once, without asking the guest, which loses what it has not written to it',
    words: 'unplug remove surprise pull force',
    repl: (station) => `await vm.unplug('${partMeant(station, 'device of PCI that can go') ?? 'ID'}', { force: true })`,
    changes: true,
    disabled: (station) => notRunning(station) ?? whyNotPart(station, 'device of PCI that can go', ['pci']),
    run: (station) =>
      station.dialogs.withPart('device of PCI that can go', 'take out', (id) => forceUnplug(station, id)),
  },
  {
    id: 'balloon',
    keys: ['b'],
    panes: ['memory'],
    anywhere: true,
    asks: true,
    title: 'balloon',
    help: 'asks the guest to leave memory to the host, or gives it back',
    words: 'memory inflate deflate',
    repl: () => "await vm.memory.balloon('SIZE')",
    qmp: () => 'balloon value=BYTES',
    changes: true,
    disabled: (station) => notRunning(station) ?? (station.model.balloon ? undefined : 'the machine has no balloon'),
    run: (station) => station.dialogs.fillInChange(balloonChange(station)),
  },
  part({
    ...{ id: 'resize-memory', keys: ['m'], panes: ['memory'], part: 'virtio-mem device', change: memoryChange },
    ...{ title: 'resize virtio-mem', help: 'how much of it the guest is to have plugged' },
    words: 'memory requested size grow shrink',
    repl: (id) => `await vm.memory.resize('${id ?? 'ID'}', 'SIZE')`,
    qmp: (id) => `qom-set path=/machine/peripheral/${id ?? 'ID'} property=requested-size value=BYTES`,
  }),
  part({
    ...{ id: 'resize-disk', keys: ['s'], panes: ['pci'], part: 'disk', change: diskResize },
    ...{ title: 'resize disk', help: 'the guest is told of its new size', words: 'grow shrink capacity block' },
    repl: (name) => `await ${memberCode('vm.disks', name ?? 'DISK')}.resize('SIZE')`,
    qmp: (name) => `block_resize device=${name ?? 'DISK'} size=BYTES`,
  }),
  part({
    ...{ id: 'change-medium', keys: ['m'], panes: ['pci'], part: 'disk', change: diskMedium },
    ...{ title: 'change medium', help: 'puts another image into a disk', words: 'disk insert eject image' },
    repl: (name) => `await ${memberCode('vm.disks', name ?? 'DISK')}.change('FILE')`,
    qmp: (name) => `blockdev-change-medium id=${name ?? 'DISK'} filename=FILE`,
  }),
  part({
    ...{ id: 'throttle-disk', keys: ['t'], panes: ['pci'], part: 'disk', change: diskThrottle },
    ...{ title: 'limit disk', help: 'its requests and bytes in a second', words: 'throttle iops bps' },
    repl: (name) => `await ${memberCode('vm.disks', name ?? 'DISK')}.throttle({…})`,
    qmp: (name) => `block_set_io_throttle id=${name ?? 'DISK'} bps=… iops=…`,
  }),
  part({
    ...{ id: 'throttle-net', keys: ['w'], panes: ['pci'], part: 'network card', change: netThrottle },
    ...{ title: 'limit network card', help: 'its packets and bytes in a second', words: 'throttle pps bps bandwidth' },
    repl: (name) => `await ${memberCode('vm.nets', name ?? 'NET')}.throttle({…})`,
  }),
  {
    id: 'link',
    keys: ['L'],
    panes: ['pci'],
    anywhere: true,
    asks: true,
    title: 'cable out or in',
    help: "of a network card: the guest's link goes down, or up",
    words: 'link network net set_link unplug',
    repl: (station) => {
      const name = partMeant(station, 'network card');
      const up = station.model.nets.find((net) => net.name === name)?.link;
      return `await ${memberCode('vm.nets', name ?? 'NET')}.link(${up === false})`;
    },
    qmp: (station) => {
      const name = partMeant(station, 'network card');
      const down = station.model.nets.find((net) => net.name === name)?.link === false;
      return `set_link name=${name ?? 'NET'} up=${down}`;
    },
    changes: true,
    disabled: (station) => notRunning(station) ?? whyNotPart(station, 'network card', ['pci']),
    run: (station) => station.dialogs.withPart('network card', 'cable', (name) => toggleLink(station, name)),
  },
  {
    id: 'undo',
    keys: ['u'],
    title: 'undo',
    help: 'takes the last live action back',
    repl: () => 'await vm.journal.undo()',
    changes: true,
    disabled: (station) => (station.vm.journal.last.done === undefined ? 'nothing was done yet' : undefined),
    confirm: (station) => `Take this back? ${station.vm.journal.last.done}`,
    run: (station) => station.vm.journal.undo(),
  },
  {
    id: 'redo',
    keys: ['ctrl-r'],
    title: 'redo',
    help: 'does again what was undone last',
    repl: () => 'await vm.journal.redo()',
    changes: true,
    disabled: (station) => (station.vm.journal.last.undone === undefined ? 'nothing was undone' : undefined),
    confirm: (station) => `Do this again? ${station.vm.journal.last.undone}`,
    run: (station) => station.vm.journal.redo(),
  },
  {
    id: 'reset',
    keys: ['X'],
    title: 'reset',
    help: 'hard reset, as by the button',
    words: 'reboot system_reset',
    repl: () => 'await vm.reset()',
    qmp: () => 'system_reset',
    changes: true,
    disabled: ended,
    confirm: () => 'Reset the machine? What the guest has not written to its disks is lost.',
    run: (station) => station.vm.reset(),
  },
  {
    id: 'nmi',
    keys: ['M'],
    title: 'send an NMI',
    help: 'to every vCPU; what the guest does with it is its own business',
    repl: () => 'await vm.nmi()',
    qmp: () => 'inject-nmi',
    changes: true,
    disabled: notRunning,
    confirm: () => 'Send an NMI to every vCPU? Many guests panic on one.',
    run: (station) => station.vm.nmi(),
  },
  {
    id: 'kill',
    keys: ['K'],
    title: 'end the machine',
    help: 'at once, without asking the guest',
    words: 'kill quit destroy',
    repl: () => 'await vm.quit()',
    qmp: () => 'quit',
    changes: true,
    disabled: ended,
    confirm: () => 'End the machine at once? What the guest has not written to its disks is lost.',
    run: (station) => station.vm.quit(),
  },
];
