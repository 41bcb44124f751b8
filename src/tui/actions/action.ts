/** What an action of the workstation is, and reasons why some cannot be done now. */
import type { PaneName } from '../layout.ts';
import type { Station } from '../station.ts';

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

/** The same in the REPL and in QMP, a line each. */
export function formsOf(action: Action, station: Station): string[] {
  const [repl, qmp] = [action.repl?.(station), action.qmp?.(station)];
  return [...(repl === undefined ? [] : [`REPL: ${repl}`]), ...(qmp === undefined ? [] : [`QMP: ${qmp}`])];
}

export const LISTS: readonly PaneName[] = ['vcpus', 'pci', 'memory', 'events'];
export const TERMINALS: readonly PaneName[] = ['console', 'repl'];

export const ended = ({ machine }: Station) =>
  machine.state === 'ended' || machine.state === 'closed' ? 'the machine has ended' : undefined;
export const notRunning = (station: Station) =>
  ended(station) ?? (station.machine.state === 'running' ? undefined : `the machine is ${station.machine.state}`);

export const noConsole = (station: Station) =>
  station.terminalOf('console') ? undefined : 'the machine has no console';
