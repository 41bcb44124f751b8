/** `nemu tile`: consoles of several machines side by side. */
import type { ReadStream, WriteStream } from 'node:tty';
import { ConsoleInput, leaveConsole } from '../../client/console_input.ts';
import { NemuError } from '../../client/errors.ts';
import type { SharedConsole } from '../../client/shared_console.ts';
import { isUnicode } from '../../tui/locale.ts';
import type { ThemeName } from '../../tui/style.ts';
import { TerminalPane } from '../../tui/terminal_pane.ts';
import { showTiles, type TileScreen } from '../../tui/tile_screen.ts';
import { type Tile, tileBoxes } from '../../tui/tiles.ts';
import { EXIT } from '../exit_codes.ts';
import { type AttachedMachine, attachMachine } from './connection.ts';
import { defaultConsole } from './console_command.ts';
import { isUp, listMachines } from './records.ts';

export interface TileOptions {
  readonly broadcast?: boolean;
  readonly watch?: boolean;
  readonly theme?: ThemeName;
  readonly mouse?: boolean;
}

/** Rows above the screen that are there to be looked at. */
const HISTORY = 1000;

/** A machine, and its console when that was named: `work`, `work:hvc0`. */
function parsePlace(text: string): { readonly name: string; readonly console: string | undefined } {
  const colon = text.indexOf(':');
  return colon < 0
    ? { name: text, console: undefined }
    : { name: text.slice(0, colon), console: text.slice(colon + 1) };
}

/** Shows consoles until the user leaves; the machines go on. @returns the exit status. */
export async function runTiles(places: readonly string[], options: TileOptions): Promise<number> {
  const wanted =
    places.length > 0
      ? places
      : listMachines()
          .filter(isUp)
          .map(({ name }) => name);
  if (wanted.length === 0) {
    throw new NemuError('MACHINE', 'No machine runs in the background.', {
      hint: 'nemu run -d --name work starts one.',
    });
  }
  if (!process.stdin.isTTY || !process.stdout.isTTY) {
    throw new NemuError('USAGE', 'nemu tile needs a terminal.', {
      hint: 'nemu logs -f NAME prints what a console says.',
    });
  }
  const machines = new Map<string, AttachedMachine>();
  const viewers: { readonly viewer: SharedConsole; readonly typed: ConsoleInput; readonly name: string }[] = [];
  try {
    const tiles: Tile[] = [];
    let screen: TileScreen | undefined;
    // Their sizes from the start: what a console has printed comes as it is at that size.
    const boxes = tileBoxes(wanted.length, process.stdout.columns, process.stdout.rows - 1);
    for (const [index, { name, console }] of wanted.map(parsePlace).entries()) {
      const { width = 80, height = 25 } = boxes?.[index] ?? {};
      const size = { columns: width, rows: height - 1 };
      const attached = machines.get(name) ?? (await attachMachine(name));
      machines.set(name, attached);
      const viewer = await attached.share.openConsole(console ?? defaultConsole(attached), {
        ...{ role: options.watch ? 'viewer' : 'driver', replay: true, history: HISTORY, terminal: !options.watch },
        ...size,
      });
      const typed = new ConsoleInput(viewer);
      viewers.push({ viewer, typed, name });
      const tile = tileOf(attached, viewer, typed, () => screen);
      tile.pane.terminal.resize(size.columns, size.rows);
      tiles.push(tile);
    }
    screen = showTiles(tiles, {
      ...{ input: process.stdin as ReadStream, output: process.stdout as unknown as WriteStream, unicode: isUnicode() },
      allEnded: Promise.all([...machines.values()].map(({ machine }) => machine.ended())),
      ...(options.theme !== undefined && { theme: options.theme }),
      ...(options.mouse !== undefined && { mouse: options.mouse }),
      ...(options.broadcast !== undefined && { broadcast: options.broadcast }),
    });
    await screen.left;
    for (const { pane } of tiles) pane.close();
    await Promise.all(
      viewers.map(async ({ viewer, typed, name }) => {
        if (machines.get(name)?.machine.end) return;
        process.stderr.write(await leaveConsole(viewer, typed, name));
      }),
    );
  } finally {
    for (const { viewer } of viewers) viewer.close();
    for (const attached of machines.values()) attached.close();
  }
  for (const { name, machine } of machines.values()) {
    process.stdout.write(machine.end ? `${name}: ${machine.end.detail}\n` : `Left ${name}; it goes on.\n`);
  }
  return EXIT.OK;
}

function tileOf(
  attached: AttachedMachine,
  viewer: SharedConsole,
  typed: ConsoleInput,
  screen: () => TileScreen | undefined,
): Tile {
  const { machine, name } = attached;
  const title = `${name} ${viewer.name}`;
  const pane = new TerminalPane({
    name: title,
    send: (bytes) => typed.send(bytes),
    changed: () => screen()?.changed(),
    resized: (rows, columns) => viewer.resize(rows, columns),
    takeOver: () => viewer.takeOver(),
  });
  let closed: string | undefined;
  viewer.onClosed = (why) => {
    closed = why;
    screen()?.changed();
  };
  viewer.onRole = (_, why) => screen()?.say(`${title}: ${why}`);
  viewer.onLost = (count) =>
    screen()?.say(`${title}: ${count} bytes came faster than they are drawn; nemu logs ${name} has all.`);
  viewer.onScreen = (shown) => pane.write(shown);
  viewer.onData = (bytes) => pane.write(bytes);
  void machine.ended().then(() => screen()?.changed());
  return { title, pane, drives: () => viewer.role === 'driver', ended: () => machine.end?.detail ?? closed };
}
