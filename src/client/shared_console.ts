/**
 * Consoles that several people look at: one drives, the others watch. The hub of a running machine gives these
 * (src/console/hub.ts), in this process or over a socket.
 */
import type { ConsoleStream } from './machine_client.ts';

/** What is typed reaches the guest from the driver alone. */
export type ConsoleRole = 'driver' | 'viewer';

/** Characters by which the others know one. */
export const MAX_LABEL = 64;
/** Rows and columns of a terminal. */
export const MAX_SIDE = 10_000;

export interface OpenConsole {
  /** `driver` when nobody drives, `takeover` in any case, `viewer` never. */
  readonly role: ConsoleRole | 'takeover';
  /** Who looks, for the others; what is beyond MAX_LABEL characters is cut. */
  readonly label?: string;
  /** The screen as it is comes first; without it, bytes from now on. */
  readonly replay?: boolean;
  /** Rows above the screen that are wanted with a replay. */
  readonly history?: number;
  /** A terminal that answers the guest's questions itself. */
  readonly terminal?: boolean;
  /** Size of the terminal; the driver's goes to the guest. One that is not positive is as if there were none. */
  readonly rows?: number;
  readonly columns?: number;
}

const DEFAULT_ROWS = 24;
const DEFAULT_COLUMNS = 80;

/**
 * The size of a terminal, for whoever needs one: a new pseudo-terminal has 0 rows and columns, a pipe has none.
 * @param reserved columns that are not the guest's; one is left to it in any case.
 */
export function sizeOf(
  terminal: { readonly rows?: number | undefined; readonly columns?: number | undefined },
  reserved = 0,
): { rows: number; columns: number } {
  const columns = Math.max(1, (terminal.columns || DEFAULT_COLUMNS) - reserved);
  return { rows: terminal.rows || DEFAULT_ROWS, columns };
}

/**
 * One viewer's end of a console. Output comes through `onData` while that is set; a viewer that was away too long is
 * told through `onLost` how many bytes it missed, and gets the screen anew. Input of one who does not drive goes
 * nowhere.
 */
export interface SharedConsole extends ConsoleStream {
  readonly role: ConsoleRole;
  /** What draws the screen as it is; output goes on from there. */
  onScreen: ((screen: Uint8Array) => void) | undefined;
  /** The role is another now, and why; told too when a console that was asked for by its name has been opened. */
  onRole: ((role: ConsoleRole, why: string) => void) | undefined;
  /** Told, behind the last output, why there is no more: the console was unplugged, or the machine has ended. */
  onClosed: ((why: string) => void) | undefined;
  takeOver(): void;
  /** The screen as it is comes next, in place of output that has not come yet: no loss is told. */
  redraw(): void;
  resize(rows: number, columns: number): void;
  /** Leaves at once; what the guest has not taken of what was written goes to it yet, as with `leave`. */
  close(): void;
  /**
   * Leaves when the guest has taken what was written: LEAVE_MS are given to it, and nothing once another drives.
   * @returns how many bytes went nowhere.
   */
  leave(): Promise<number>;
}

/** What there is to know of a console that is shared. */
export interface ConsoleReport {
  readonly name: string;
  /** Bytes of output so far. */
  readonly bytes: number;
  /** Bytes of output that were lost before anybody saw them. */
  readonly lost: number;
  readonly driver: string | undefined;
  readonly viewers: readonly string[];
  readonly rows: number;
  readonly columns: number;
  /** Pseudo-terminal that programs may open. */
  readonly pty?: string;
}

/** The consoles of a machine that are handed out. */
export interface ConsoleProvider {
  readonly names: readonly string[];
  /** @throws NemuError CONSOLE for a name that is none. */
  open(name: string, options: OpenConsole): SharedConsole;
  /**
   * Lines of what is kept of a console in which a text is, whatever its case; the newest last.
   * @throws NemuError CONSOLE for a name that is none.
   */
  search(name: string, text: string, most: number): string[];
  report(): ConsoleReport[];
}
