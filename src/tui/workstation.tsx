/** Puts the workstation on a terminal: keys, mouse, frames, zoom, and the terminal as it was when all is over. */
import { PassThrough } from 'node:stream';
import type { ReadStream, WriteStream } from 'node:tty';
import { render } from 'ink';
import { ConsoleInput, leaveConsole } from '../client/console_input.ts';
import type { NotedEvent } from '../client/event_history.ts';
import type { GuestChannel } from '../client/guest_session.ts';
import type { ConsoleStream, MachineClient } from '../client/machine_client.ts';
import type { ConsoleRole, SharedConsole } from '../client/shared_console.ts';
import { ReplSession } from '../repl/session.ts';
import { Vm } from '../repl/vm.ts';
import { App } from './app.tsx';
import { copyText } from './clipboard.ts';
import type { StationClock } from './clock.ts';
import { coloursOf } from './colours.ts';
import { Drawing } from './drawing.ts';
import type { Frame } from './frame.ts';
import type { Glyphs } from './graph.ts';
import { DRAG_OFF, DRAG_ON, PASTE_OFF, PASTE_ON, TerminalInput } from './input.ts';
import { isUnicode } from './locale.ts';
import { MachineModel } from './model.ts';
import { mouse } from './mouse.ts';
import { Station } from './station.ts';
import type { ThemeName } from './style.ts';
import { TerminalPane } from './terminal_pane.ts';
import { Zoom } from './zoom.ts';

/**
 * DECAWM: terminals do not agree on the width of every character that a guest may print. Where one takes more cells than
 * was reckoned with, its row is cut, and does not wrap and move all that is below it.
 */
const WRAP_OFF = '\x1b[?7l';
const WRAP_ON = '\x1b[?7h';
/** Ink draws from where the cursor is when it enters the alternate screen; the first row begins at its column. */
const FIRST_COLUMN = '\r';

/** A program of the host with a terminal of its own, which ends when that is closed. */
export interface HostProgram {
  onData: (bytes: Uint8Array) => void;
  /** Once. */
  onEnd: (why: string) => void;
  send(bytes: Uint8Array): void;
  resize(rows: number, columns: number): void;
  close(): void;
}

export interface WorkstationOptions {
  readonly input: ReadStream;
  readonly output: WriteStream;
  /** Where machines run, for the header. */
  readonly place: string;
  readonly readonly?: boolean;
  readonly theme?: ThemeName;
  readonly glyphs?: Glyphs;
  readonly mouse?: boolean;
  /** The machine is another process's, and goes on when the user leaves: what happened to it before. */
  readonly attached?: { readonly history: readonly NotedEvent[] };
  /** Asks the user to leave, as SIGHUP and SIGTERM do. */
  readonly interrupted?: Promise<void>;
  /** The machine can go on in the background without this terminal. */
  readonly canStay?: boolean;
  /** Those that are shown; all that are for people without it. */
  readonly consoles?: readonly string[];
  /** Where exported files go. */
  readonly exports: string;
  /** What was typed into the REPL is kept here. */
  readonly history?: string;
  /** The host's without it. */
  readonly clock?: StationClock;
  /** Starts a shell of the host. @throws what the host says against it. */
  readonly shell?: (rows: number, columns: number) => HostProgram;
  /** Starts the host's gdb on the machine. @throws what the host says against it. */
  readonly gdb?: (rows: number, columns: number) => HostProgram;
}

/** What is to become of the machine. */
export type Left = 'ends' | 'stays';

/**
 * Shows a machine until the user leaves.
 * The machine is not started, and not closed: that is the caller's.
 */
export async function runWorkstation(
  machine: MachineClient,
  guest: GuestChannel | undefined,
  options: WorkstationOptions,
): Promise<Left> {
  const { input, output } = options;
  const unicode = isUnicode();
  const modesOn = WRAP_OFF + PASTE_ON + (options.mouse === false ? '' : DRAG_ON);
  const modesOff = WRAP_ON + PASTE_OFF + (options.mouse === false ? '' : DRAG_OFF);
  const vm = new Vm({ machine, guest });
  const model = new MachineModel(vm, guest, options.clock);
  if (options.attached) model.remember(options.attached.history);
  const left = Promise.withResolvers<Left>();
  const terminal = new TerminalInput();
  let suspend: (() => Promise<{ resume(): Promise<void> }>) | undefined;
  let frame: Frame | undefined;

  const draw = new Drawing();
  /** How consoles are left that others have too, when the machine goes on. */
  const leaving = new Map<string, () => Promise<string>>();
  const openConsole = (name: string): TerminalPane => {
    const stream = machine.console(name);
    const shared = isShared(stream) ? stream : undefined;
    const typed = new ConsoleInput(stream);
    if (shared) leaving.set(name, () => leaveConsole(shared, typed, `${machine.description.name} ${name}`));
    // Until the console has been opened nobody knows.
    let role: ConsoleRole | undefined;
    const pane = new TerminalPane({
      name,
      send: (bytes) => typed.send(bytes),
      changed: () => draw.request(),
      resized: (rows, columns) => {
        if (shared) shared.resize(rows, columns);
        else void tellSize(machine, guest, name, rows, columns);
      },
      ...(shared && { takeOver: () => shared.takeOver(), drives: () => role !== 'viewer' }),
    });
    if (shared) {
      shared.onRole = (now, why) => {
        // To drive one's own console is no news.
        const news = role !== undefined || (now === 'viewer' && !options.readonly);
        role = now;
        if (news) model.say('action', `${name}: ${why} You ${now === 'driver' ? 'drive it' : 'watch'}.`);
        draw.request();
      };
    }
    stream.onLost = (count) => {
      pane.lost(count);
      model.say('device', `${name}: ${count} bytes were lost: nobody took them in time`, 'warn');
    };
    stream.onData = (bytes) => {
      if (name === 'com1') model.watchConsole(bytes);
      pane.write(bytes);
      zoom.saw(pane, bytes);
    };
    return pane;
  };
  const closeConsole = (pane: TerminalPane) => {
    if (zoom.pane === pane) zoom.end();
    station.removeConsole(pane);
    pane.close();
  };
  const repl = replPane(vm, options, () => draw.request());

  const zoom = new Zoom(output, terminal, {
    mute: options.readonly ?? false,
    skipped: (count) =>
      model.say('device', `this terminal was too slow for ${count} bytes of a console, and was drawn afresh`, 'warn'),
  });

  const typing = (pane: TerminalPane | undefined) => {
    terminal.raw = pane;
  };
  const station = new Station({
    model,
    consoles: (options.consoles ?? guestConsoles(machine)).map(openConsole),
    repl: repl.pane,
    place: options.place,
    readonly: options.readonly ?? false,
    attached: options.attached !== undefined,
    canStay: options.canStay ?? false,
    theme: process.env.NO_COLOR ? 'plain' : (options.theme ?? 'dark'),
    glyphs: unicode ? (options.glyphs ?? 'braille') : 'plain',
    unicode,
    colours: coloursOf(output, process.env),
    exports: options.exports,
    host: {
      redraw,
      typing,
      copy: (text) => copyText(text, (sequence) => output.write(sequence)),
      leave: (how) => left.resolve(how),
      ...(options.shell && { shell: () => openProgram('host', options.shell) }),
      ...(options.gdb && { gdb: () => openProgram('gdb', options.gdb) }),
      zoom: (pane) => giveTo(pane),
    },
  });
  /** One at a time takes the terminal out of Ink's hands. */
  let handed: Promise<void> = Promise.resolve();
  type Suspended = Awaited<ReturnType<NonNullable<typeof suspend>>> | undefined;
  /** The terminal is the workstation's again, whatever is on it: Ink clears it, and draws all. */
  const takeBack = async (suspended: Suspended) => {
    output.write(FIRST_COLUMN);
    await suspended?.resume();
    input.setRawMode(true);
    output.write(modesOn);
    draw.request();
  };
  function redraw(): void {
    const drawn = handed.then(async () => takeBack(await suspend?.()));
    handed = drawn.catch((error: Error) =>
      model.say('action', `The screen was not drawn anew: ${error.message}`, 'bad'),
    );
  }
  function giveTo(pane: TerminalPane): Promise<void> {
    let suspended: Suspended;
    const free = handed.then(async () => {
      suspended = await suspend?.();
      output.write(modesOff);
      input.setRawMode(true);
      input.resume();
    });
    const over = zoom.show(pane, free).then(() => takeBack(suspended));
    handed = over.catch(() => {});
    return over;
  }
  const programs = new Set<HostProgram>();
  const openProgram = (kind: string, start: WorkstationOptions['shell']) => {
    if (!start) throw new Error(`There is no ${kind} here.`);
    const taken = station.consoles.map(({ name }) => name);
    const name =
      [kind, ...taken.map((_, index) => `${kind}${index + 2}`)].find((each) => !taken.includes(each)) ?? kind;
    const { rows, cols } = station.terminalOf('console')?.terminal ?? { rows: 24, cols: 80 };
    const program = start(rows, cols);
    const pane = new TerminalPane({
      name,
      send: (bytes) => program.send(bytes),
      changed: () => draw.request(),
      resized: (height, width) => program.resize(height, width),
    });
    program.onData = (bytes) => {
      pane.write(bytes);
      zoom.saw(pane, bytes);
    };
    program.onEnd = (why) => {
      programs.delete(program);
      closeConsole(pane);
      model.say('action', `${name}: ${why}`);
      station.say(`${name}: ${why}`);
    };
    programs.add(program);
    station.addConsole(pane);
    return pane;
  };
  terminal.onLeave = () => station.stopTyping();
  terminal.onKey = (name, text) => station.key(name, text);
  terminal.onPaste = (text) => station.paste(text);
  terminal.onMouse = (event) => frame && mouse(station, frame, event);
  model.subscribe(() => draw.request());
  const unlisten = machine.onEvent((event) => {
    if (event.type === 'console') {
      const known = station.consoles.find(({ name }) => name === event.name);
      if (event.change === 'removed') known && closeConsole(known);
      else if (!known) station.addConsole(openConsole(event.name));
    }
    // Nobody is left to type to; the REPL still looks at what there was, and a shell has its own life.
    if (event.type !== 'state' || event.state !== 'ended') return;
    if (station.typingInto && machine.consoles.includes(station.typingInto.name)) station.stopTyping();
  });

  input.setRawMode(true);
  input.resume();
  const take = (bytes: Buffer) => {
    terminal.take(bytes);
    draw.hurry();
  };
  input.on('data', take);
  // A process that ends by an error leaves no terminal behind that sends a shell the mouse's moves.
  const restore = () => output.write(zoom.undo + modesOff);
  process.once('exit', restore);
  output.write(modesOn);
  output.write(FIRST_COLUMN);
  const app = render(
    <App
      station={station}
      version={draw}
      onFrame={(next) => {
        frame = next;
      }}
      onReady={(how) => {
        suspend = how as typeof suspend;
      }}
    />,
    {
      // Keys do not pass through Ink: it would have those that came at once as one, and take what was typed for a guest.
      stdin: new PassThrough() as unknown as ReadStream,
      stdout: output,
      exitOnCtrlC: false,
      patchConsole: false,
      alternateScreen: true,
      incrementalRendering: true,
      interactive: true,
      // `Drawing` says when: a second limit would only have a key wait twice.
      maxFps: 1000,
      onRender: ({ renderTime }) => draw.took(renderTime),
    },
  );
  // Ink ends when a pane throws: nobody would see anything, nor could leave.
  const over = app.waitUntilExit().catch(left.reject);
  model.watch();
  const hangUp = () => left.resolve('ends');
  void options.interrupted?.then(hangUp);
  process.once('SIGHUP', hangUp);
  process.once('SIGTERM', hangUp);
  let how: Left;
  try {
    how = await left.promise;
  } finally {
    process.off('SIGHUP', hangUp);
    process.off('SIGTERM', hangUp);
    zoom.end();
    await handed;
    unlisten();
    model.close();
    draw.close();
    app.unmount();
    await over;
    process.off('exit', restore);
    restore();
    input.off('data', take);
    terminal.close();
    input.setRawMode(false);
    input.pause();
    repl.close();
    station.files.close();
    for (const program of programs) program.close();
    for (const pane of [...station.consoles, repl.pane]) pane.close();
  }
  if (!machine.end && (options.attached || how === 'stays')) {
    for (const dropped of await Promise.all([...leaving.values()].map((leave) => leave()))) output.write(dropped);
  }
  return how;
}

const isShared = (stream: ConsoleStream): stream is SharedConsole => 'takeOver' in stream;

/** A guest whose console cannot be told by the machine is told by its agent. */
async function tellSize(
  machine: MachineClient,
  guest: GuestChannel | undefined,
  name: string,
  rows: number,
  columns: number,
): Promise<void> {
  const told = await machine.resizeConsole(name, rows, columns).catch(() => true);
  if (!told && name === 'com1') guest?.resize(rows, columns);
}

/** Consoles for people; the ports of a guest's agent are not. */
const guestConsoles = (machine: MachineClient): string[] =>
  machine.consoles.filter(
    (name) => name === 'com1' || !machine.description.serial.some(({ port, flow }) => port === name && flow === 'wait'),
  );

/** A REPL whose terminal is a pane. */
function replPane(vm: Vm, options: WorkstationOptions, changed: () => void) {
  let typed = new PassThrough();
  const printed = Object.assign(new PassThrough(), { columns: 80, rows: 24, isTTY: true });
  const pane = new TerminalPane({
    name: 'REPL',
    send: (bytes) => typed.write(bytes),
    resized: (rows, columns) => {
      Object.assign(printed, { rows, columns });
      printed.emit('resize');
    },
    changed,
  });
  printed.on('data', (bytes: Buffer) => pane.write(Buffer.from(bytes.toString('utf8').replaceAll(/\r?\n/g, '\r\n'))));
  let session: ReplSession | undefined;
  let closed = false;
  const open = () => {
    typed = new PassThrough();
    session = new ReplSession(vm, {
      input: typed,
      output: printed,
      terminal: true,
      colors: !process.env.NO_COLOR,
      ...(options.history !== undefined && { history: options.history }),
    });
    // There is nowhere to go from a pane: Ctrl-D and .exit begin anew.
    void session.left.then(() => closed || open());
  };
  open();
  const close = () => {
    closed = true;
    session?.close();
  };
  return { pane, close };
}
