/** Actions that look at the machine, and talk to its consoles. */
import type { Station } from '../station.ts';
import { type Action, ended, LISTS, noConsole, notRunning, TERMINALS } from './action.ts';

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

export const LOOKING: readonly Action[] = [
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
