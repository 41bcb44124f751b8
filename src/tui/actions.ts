/** Every action of the workstation, once: keys, help, palette, footer, mouse and the README's table come from here. */
import { memberCode } from '../client/code.ts';
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
} from './changes.ts';
import type { PaneName } from './layout.ts';
import type { Station } from './station.ts';

export interface Action {
  readonly id: string;
  readonly keys: readonly string[];
  /** Only while this pane has the focus; everywhere without it. */
  readonly panes?: readonly PaneName[];
  /** The palette does it from every pane: its keys alone belong to those. */
  readonly anywhere?: boolean;
  readonly title: string;
  readonly help: string;
  /** More words to find it by. */
  readonly words?: string;
  /** Shown in the footer, in a word or two. */
  readonly footer?: string;
  /** The same in the REPL, and in QMP. */
  readonly repl?: (station: Station) => string | undefined;
  readonly qmp?: (station: Station) => string | undefined;
  /** It changes the machine: not for --readonly. */
  readonly changes?: boolean;
  /** Why it cannot be done now, in half a sentence. */
  readonly disabled?: (station: Station) => string | undefined;
  /** It is a form, or asks more, and tells what it does when that is known. */
  readonly asks?: boolean;
  /** What is asked before. */
  readonly confirm?: (station: Station) => string | undefined;
  readonly run: (station: Station) => unknown;
}

const LISTS: readonly PaneName[] = ['vcpus', 'pci', 'memory', 'events'];
const TERMINALS: readonly PaneName[] = ['console', 'repl'];

const ended = ({ machine }: Station) =>
  machine.state === 'ended' || machine.state === 'closed' ? 'the machine has ended' : undefined;
const notRunning = (station: Station) =>
  ended(station) ?? (station.machine.state === 'running' ? undefined : `the machine is ${station.machine.state}`);

const noConsole = (station: Station) => (station.terminalOf('console') ? undefined : 'the machine has no console');
/** Of the pane in focus. */
const noTerminal = (station: Station) => (station.terminalOf(station.focus) ? undefined : 'the machine has no console');
const noOtherConsole = (station: Station) =>
  noConsole(station) ?? (station.consoles.length > 1 ? undefined : 'there is no other one');

/** Nobody is there to type to; the REPL and programs of the host have their own life. */
function nobodyToTypeTo(station: Station): string | undefined {
  const pane = station.terminalOf(station.focus);
  if (!pane) return noTerminal(station);
  if (pane.watching) return 'somebody else drives it; O takes it over';
  return station.machine.consoles.includes(pane.name) ? ended(station) : undefined;
}

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

const MACHINE: readonly Action[] = [
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

const LOOKING: readonly Action[] = [
  {
    id: 'open',
    keys: ['enter'],
    panes: LISTS,
    title: 'look inside',
    help: 'vCPU: registers and symbol; PCI: config space and queues; event: all of it',
    footer: 'look inside',
    repl: (station) => station.dialogs.lookForm,
    disabled: (station) => (station.chosen === undefined ? 'nothing is chosen' : undefined),
    run: (station) => station.dialogs.open(),
  },
  {
    id: 'type',
    keys: ['enter', 'i'],
    panes: TERMINALS,
    title: 'type into it',
    help: 'every key goes to the console or the REPL until Ctrl-]',
    footer: 'type',
    changes: true,
    disabled: nobodyToTypeTo,
    run: (station) => station.type(),
  },
  {
    id: 'zoom',
    keys: ['z'],
    panes: TERMINALS,
    title: 'zoom',
    help: 'the console has the whole terminal until Ctrl-]; read-only, to look at it',
    footer: 'zoom',
    disabled: noTerminal,
    run: (station) => station.zoom(),
  },
  {
    id: 'copy-mode',
    keys: ['v'],
    panes: TERMINALS,
    title: 'copy text',
    help: 'marks text by keys (v begins, y copies, Esc leaves); the mouse does it too',
    words: 'select mark clipboard yank mode',
    disabled: noTerminal,
    run: (station) => station.startCopying(),
  },
  {
    id: 'next-console',
    keys: [']'],
    panes: ['console'],
    title: 'next console',
    help: 'of the machine',
    disabled: noOtherConsole,
    run: (station) => station.nextConsole(1),
  },
  {
    id: 'previous-console',
    keys: ['['],
    panes: ['console'],
    title: 'previous console',
    help: 'of the machine',
    disabled: noOtherConsole,
    run: (station) => station.nextConsole(-1),
  },
  {
    id: 'filter',
    keys: ['/'],
    panes: [...LISTS, ...TERMINALS],
    title: 'filter, or search',
    help: 'narrows a list; in a console, searches its scrollback upwards (n, N: on)',
    footer: 'filter',
    disabled: (station) => (TERMINALS.includes(station.focus) ? noTerminal(station) : undefined),
    run: (station) => station.startFilter(),
  },
  {
    id: 'find-next',
    keys: ['n'],
    panes: TERMINALS,
    title: 'search on, upwards',
    help: 'for what was searched last',
    disabled: (station) => (station.filterOf(station.focus) === '' ? 'nothing was searched yet' : undefined),
    run: (station) => station.find(station.focus, true),
  },
  {
    id: 'find-previous',
    keys: ['N'],
    panes: TERMINALS,
    title: 'search on, downwards',
    help: 'for what was searched last',
    disabled: (station) => (station.filterOf(station.focus) === '' ? 'nothing was searched yet' : undefined),
    run: (station) => station.find(station.focus, false),
  },
  {
    id: 'timestamps',
    keys: ['t'],
    panes: ['console'],
    title: 'times of lines',
    help: 'shows when each line of the console was begun, or does not',
    words: 'timestamps clock',
    disabled: noConsole,
    run: (station) => station.toggleTimestamps(),
  },
  {
    id: 'log-console',
    keys: ['f'],
    panes: ['console'],
    title: 'log to a file',
    help: "writes the console's output to a file from now on, or ends that",
    words: 'save write',
    disabled: noConsole,
    run: (station) => station.toggleFile('log'),
  },
  {
    id: 'record-console',
    keys: ['r'],
    panes: ['console'],
    title: 'record',
    help: 'as an asciicast from now on, or ends that; `nemu play` shows it',
    words: 'asciicast asciinema cast video',
    disabled: noConsole,
    run: (station) => station.toggleFile('recording'),
  },
  {
    id: 'info',
    keys: ['I'],
    title: 'tables',
    help: 'everything that `info` shows: cpus, memory, pci, irq, queues, exits, disks…',
    words: 'info registers numa irq exits',
    repl: () => "await vm.info('…')",
    run: (station) => station.dialogs.chooseInfo(),
  },
  {
    id: 'export-events',
    keys: ['e'],
    panes: ['events'],
    title: 'export the events',
    help: 'those that the filter shows, to a file, one JSON object a line',
    footer: 'export',
    run: (station) => station.exportEvents(),
  },
  {
    id: 'dirty-rate',
    keys: ['w'],
    panes: ['memory'],
    anywhere: true,
    title: 'watch writes to memory',
    help: 'measures how fast the guest writes to which memory, or stops that; it costs the guest an exit a page',
    words: 'dirty rate pages log migration',
    repl: ({ model }) => (model.dirty.on ? undefined : 'await vm.memory.dirtyRate(1)'),
    qmp: ({ model }) => (model.dirty.on ? undefined : 'calc-dirty-rate calc-time=1'),
    changes: true,
    disabled: (station) => (station.model.dirty.on ? undefined : notRunning(station)),
    run: (station) => station.toggleDirtyRate(),
  },
  {
    id: 'refresh',
    keys: ['R'],
    title: 'refresh',
    help: 'asks the machine for everything now',
    run: (station) => station.model.refresh(),
  },
];

/** Of a machine that others look at too. */
export const TAKE_OVER: Action = {
  id: 'take-over',
  keys: ['O'],
  panes: ['console'],
  title: 'take over',
  help: 'what you type reaches the guest, in place of whoever drives the console now',
  words: 'drive watch',
  changes: true,
  disabled: (station) => {
    const pane = station.terminalOf('console');
    if (!pane?.takeOver) return 'nobody else is at this console';
    return pane.watching ? undefined : 'you drive it already';
  },
  run: (station) => station.terminalOf('console')?.takeOver?.(),
};

const MOVING: readonly Action[] = [
  {
    id: 'up',
    keys: ['up', 'k'],
    title: 'up',
    help: 'chooses the row above; in a console, shows older lines',
    words: 'arrow scroll back',
    run: (station) => station.scroll(station.focus, -1),
  },
  {
    id: 'down',
    keys: ['down', 'j'],
    title: 'down',
    help: 'chooses the row below; in a console, shows newer lines',
    words: 'arrow scroll',
    run: (station) => station.scroll(station.focus, 1),
  },
  {
    id: 'page-up',
    keys: ['pageup'],
    title: 'a page up',
    help: 'as many rows as the pane shows',
    words: 'scroll back',
    run: (station) => station.scroll(station.focus, -station.page),
  },
  {
    id: 'page-down',
    keys: ['pagedown'],
    title: 'a page down',
    help: 'as many rows as the pane shows',
    words: 'scroll',
    run: (station) => station.scroll(station.focus, station.page),
  },
  {
    id: 'start',
    keys: ['home', 'g'],
    title: 'to the start',
    help: 'the first row, or the oldest line',
    words: 'top',
    run: (station) => station.scroll(station.focus, -Infinity),
  },
  {
    id: 'end',
    keys: ['end', 'G'],
    title: 'to the end',
    help: 'the last row, or what is printed now',
    words: 'bottom live',
    run: (station) => station.scroll(station.focus, Infinity),
  },
  {
    id: 'back',
    keys: ['esc'],
    title: 'back',
    help: 'drops the filter; else comes back from older lines, or from the larger layout',
    words: 'escape',
    run: (station) => station.back(),
  },
];

/** It is done whatever stands in front. */
export const REDRAW: Action = {
  id: 'redraw',
  keys: ['ctrl-l'],
  title: 'draw anew',
  help: 'the whole screen, where something else has written over it',
  words: 'redraw clear repaint',
  run: (station) => station.redraw(),
};

const WORKSTATION: readonly Action[] = [
  {
    id: 'host-shell',
    keys: ['!'],
    title: 'a shell of the host',
    help: 'in a terminal beside the consoles, for scripts and `nemu`; it goes when the shell ends',
    words: 'terminal program bash command',
    changes: true,
    disabled: (station) => (station.hasShell ? undefined : 'there is none here'),
    run: (station) => station.shell(),
  },
  {
    id: 'gdb',
    keys: ['x'],
    title: 'gdb',
    help: "this host's gdb on the guest's kernel, in a terminal beside the consoles; the guest stops while it is at its prompt",
    words: 'debug debugger breakpoint step vmlinux',
    changes: true,
    disabled: (station) => ended(station) ?? (station.hasGdb ? undefined : 'there is none here'),
    run: (station) => station.gdb(),
  },
  {
    id: 'help',
    keys: ['?'],
    title: 'help',
    help: 'all keys; type to narrow, Enter does what is chosen',
    footer: 'help',
    run: (station) => station.dialogs.showHelp(),
  },
  {
    id: 'palette',
    keys: [':'],
    title: 'palette',
    help: 'any action by its name, or a line for the REPL',
    footer: 'palette',
    run: (station) => station.dialogs.showPalette(),
  },
  ...(['vcpus', 'pci', 'memory', 'activity', 'console', 'repl', 'events'] as const).map(
    (pane, index): Action => ({
      id: `focus-${pane}`,
      keys: [String(index + 1)],
      title: `to ${pane}`,
      help: 'moves the focus there',
      run: (station) => station.focusOn(pane),
    }),
  ),
  {
    id: 'next-pane',
    keys: ['tab', 'right', 'l'],
    title: 'next pane',
    help: 'moves the focus',
    run: (station) => station.moveFocus(1),
  },
  {
    id: 'previous-pane',
    keys: ['shift-tab', 'left', 'h'],
    title: 'previous pane',
    help: 'moves the focus',
    run: (station) => station.moveFocus(-1),
  },
  {
    id: 'layout',
    keys: ['+'],
    title: 'larger',
    help: 'the pane in focus takes half of the screen, then all of it',
    words: 'layout full half normal',
    run: (station) => station.changeLayout(1),
  },
  {
    id: 'layout-back',
    keys: ['_', '-'],
    title: 'smaller',
    help: 'the other way round',
    run: (station) => station.changeLayout(-1),
  },
  REDRAW,
  {
    id: 'theme',
    keys: ['T'],
    title: 'theme',
    help: 'the next one: dark, light, contrast, plain',
    words: 'colours skin',
    run: (station) => station.nextTheme(),
  },
  {
    id: 'glyphs',
    keys: ['B'],
    title: 'graphs',
    help: 'braille, blocks or plain characters',
    run: (station) => station.nextGlyphs(),
  },
  {
    id: 'leave',
    keys: ['q', 'ctrl-c'],
    title: 'leave',
    help: 'asks what becomes of a guest that runs',
    words: 'quit exit',
    footer: 'leave',
    run: (station) => station.leave(),
  },
];

export const ACTIONS: readonly Action[] = [...MACHINE, ...LOOKING, TAKE_OVER, ...MOVING, ...WORKSTATION];

/** What a key does in a pane: an action of the pane goes before one for all. */
export function actionFor(key: string, pane: PaneName): Action | undefined {
  return (
    ACTIONS.find(({ keys, panes }) => panes?.includes(pane) && keys.includes(key)) ??
    ACTIONS.find(({ keys, panes }) => panes === undefined && keys.includes(key))
  );
}

/** The same in the REPL and in QMP, a line each. */
export function formsOf(action: Action, station: Station): string[] {
  const [repl, qmp] = [action.repl?.(station), action.qmp?.(station)];
  return [...(repl === undefined ? [] : [`REPL: ${repl}`]), ...(qmp === undefined ? [] : [`QMP: ${qmp}`])];
}

/** Actions that make sense in a pane, its own first. */
export function actionsIn(pane: PaneName): Action[] {
  const here = ACTIONS.filter(({ panes }) => panes?.includes(pane));
  const all = ACTIONS.filter(({ panes }) => panes === undefined);
  return [...here, ...all.filter(({ keys }) => actionFor(keys[0], pane)?.panes === undefined)];
}
