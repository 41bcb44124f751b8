/** `nemu console`: this terminal, or standard input and output, at a console of a machine in the background. */
import { createInterface } from 'node:readline/promises';
import type { ReadStream, WriteStream } from 'node:tty';
import { ConsoleInput, leaveConsole } from '../../client/console_input.ts';
import { NemuError } from '../../client/errors.ts';
import { type ConsoleReport, type SharedConsole, sizeOf } from '../../client/shared_console.ts';
import { table } from '../../client/text_table.ts';
import { CastRecorder } from '../../console/asciicast.ts';
import { LineStamper } from '../../console/line_stamper.ts';
import { timeOfDay } from '../../console/time_of_day.ts';
import { ReplSession } from '../../repl/session.ts';
import { Vm } from '../../repl/vm.ts';
import {
  ConsoleSession,
  machineCommands,
  parsePrefix,
  prefixName,
  type SessionCommand,
  takeOverCommand,
  tellRoles,
} from '../console_session.ts';
import { EXIT } from '../exit_codes.ts';
import { checkOutputFile } from '../output_files.ts';
import { terminalStreams } from '../repl_run.ts';
import { printable } from '../report.ts';
import type { AttachedMachine } from './connection.ts';

export interface ConsoleOptions {
  readonly watch?: boolean;
  readonly take?: boolean;
  readonly record?: string;
  readonly timestamps?: boolean;
  readonly list?: boolean;
  readonly json?: boolean;
  readonly history: string;
  readonly prefix: string;
  /** Command line that comes back here. */
  readonly again: string;
}

/** Ctrl-] */
const LEAVE = 0x1d;

/** The console that people mean when they name none. */
export function defaultConsole({ share, known }: AttachedMachine): string {
  const wanted = known.record.command ? 'com2' : 'com1';
  return share.names.includes(wanted) ? wanted : (share.names[0] ?? wanted);
}

/** @returns the exit status. @throws NemuError CONSOLE for a console that is none. */
export async function runConsole(
  attached: AttachedMachine,
  console: string | undefined,
  options: ConsoleOptions,
): Promise<number> {
  if (options.list) {
    const reports = await attached.share.consoleReports();
    process.stdout.write(options.json ? `${JSON.stringify(reports, null, 2)}\n` : `${consoleTable(reports)}\n`);
    return EXIT.OK;
  }
  if (options.record !== undefined) checkOutputFile(options.record);
  const name = console ?? defaultConsole(attached);
  const terminal = Boolean(process.stdin.isTTY && process.stdout.isTTY);
  // A pipe that nobody writes would drive the console for nothing.
  const drives = options.take ? 'takeover' : options.watch || !terminal ? 'viewer' : 'driver';
  const viewer = await attached.share.openConsole(name, {
    role: drives,
    replay: terminal,
    history: historyRows(options.history),
    terminal: terminal && !options.watch,
    ...(terminal && sizeOf(process.stdout, stampCells(options))),
  });
  const recorder =
    options.record === undefined
      ? undefined
      : new CastRecorder(
          options.record,
          process.stdout,
          `${attached.name} ${name}`,
          (error) => void process.stderr.write(`nemu: the recording has ended: ${error.message}\n`),
        );
  try {
    return terminal
      ? await new AttachedTerminal(attached, viewer, recorder, options).toTheEnd()
      : await pipe(attached, viewer, recorder, options);
  } finally {
    recorder?.close();
    viewer.close();
  }
}

/** `15:04:05.678 ` */
const STAMP_CELLS = 13;
/** Cells that the guest's terminal does not have for it. */
const stampCells = ({ timestamps }: ConsoleOptions) => (timestamps ? STAMP_CELLS : 0);

function historyRows(text: string): number {
  if (/^\d{1,5}$/.test(text)) return Number(text);
  throw new NemuError('USAGE', `--history ${text} is no number of rows.`);
}

function consoleTable(reports: readonly ConsoleReport[]): string {
  return table(
    ['console', 'size', 'bytes', 'lost', 'driver', 'viewers', 'terminal'],
    reports.map(({ name, rows, columns, bytes, lost, driver, viewers, pty }) => [
      ...[name, `${columns}x${rows}`, bytes, lost, driver ?? '-', viewers.join(', ') || '-', pty ?? '-'],
    ]),
  );
}

/** Resolves when a console has gone and its last output was given out: the machine has ended, or it was unplugged. */
const whyClosed = (viewer: SharedConsole): Promise<{ readonly why: string }> =>
  new Promise((resolve) => {
    viewer.onClosed = (why) => resolve({ why });
  });

class AttachedTerminal {
  readonly #attached: AttachedMachine;
  readonly #viewer: SharedConsole;
  readonly #recorder: CastRecorder | undefined;
  readonly #session: ConsoleSession;
  readonly #again: string;
  readonly #left = Promise.withResolvers<'left'>();
  readonly #stamper: LineStamper | undefined;
  /** Nothing more goes to the terminal. */
  #leaving = false;
  #vm: Vm | undefined;

  constructor(
    attached: AttachedMachine,
    viewer: SharedConsole,
    recorder: CastRecorder | undefined,
    options: ConsoleOptions,
  ) {
    this.#attached = attached;
    this.#viewer = viewer;
    this.#recorder = recorder;
    this.#again = options.again;
    if (options.timestamps) {
      const stamp = () => `\x1b[2m${timeOfDay(Date.now())}\x1b[22m `;
      this.#stamper = new LineStamper({ stamp, cells: STAMP_CELLS });
    }
    const prefix = parsePrefix(options.prefix);
    if (prefix === undefined) throw new NemuError('USAGE', `--prefix ${options.prefix} is not a control key.`);
    const leave = () => this.#left.resolve('left');
    this.#session = new ConsoleSession(process.stdin as ReadStream, process.stdout as unknown as WriteStream, viewer, {
      prefix,
      leave: { key: LEAVE, help: 'leave; the machine goes on', run: leave },
      redraws: true,
      commands: [
        { key: 'd', help: 'leave, too', run: () => void leave(), leaves: true },
        ...(options.watch ? [] : this.#driving(options)),
        ...machineCommands(attached.machine, prefix),
        { key: 'c', help: 'a REPL on the machine; Ctrl-d comes back', takesTerminal: true, run: () => this.#repl() },
        { key: '/', help: 'search what the console has printed', takesTerminal: true, run: () => this.#search() },
      ],
      resized: (rows, columns) => {
        const size = sizeOf({ rows, columns }, stampCells(options));
        viewer.resize(size.rows, size.columns);
        recorder?.resized(rows, columns);
      },
    });
    process.stderr.write(
      `\x1b[2m[nemu] ${attached.name}, ${viewer.name}; Ctrl-] leaves, ${prefixName(prefix)} h for help\x1b[0m\r\n`,
    );
    tellRoles(viewer, options.watch ? undefined : prefix, (text) => this.#session.say(text));
    viewer.onLost = (count) =>
      this.#session.say(
        `${count} bytes came faster than this terminal takes them; nemu logs ${attached.name} has all.`,
      );
    viewer.onScreen = (screen) => {
      this.#stamper?.restart();
      this.#print(screen, screen);
    };
    viewer.onData = this.#take;
    if (!options.watch && viewer.role !== 'driver') {
      this.#session.say(
        `Somebody else drives this console: what you type goes nowhere. ${prefixName(prefix)} t takes it over.`,
      );
    }
  }

  #driving(options: ConsoleOptions): SessionCommand[] {
    return [
      takeOverCommand(this.#viewer),
      {
        key: 'w',
        help: "type `stty rows … columns …`: a serial port's guest does not know this terminal's size",
        run: () => {
          const { rows, columns } = sizeOf(process.stdout, stampCells(options));
          this.#session.send(Buffer.from(`stty rows ${rows} columns ${columns}\r`));
          return undefined;
        },
      },
    ];
  }

  #stamped(bytes: Uint8Array): Uint8Array {
    // A program that has the whole screen has no lines.
    return this.#stamper && !this.#session.modes.alternate ? this.#stamper.take(bytes) : bytes;
  }

  /** @param shown the same with its times. */
  #print(bytes: Uint8Array, shown: Uint8Array): void {
    this.#recorder?.bytes(bytes);
    if (this.#leaving) return;
    process.stdout.write(shown);
    this.#session.printed(bytes);
  }

  readonly #take = (bytes: Uint8Array): void => this.#print(bytes, this.#stamped(bytes));

  /** Something else has the terminal: what the guest prints waits where it is kept, and is let go there. */
  async #away(action: () => Promise<unknown>): Promise<undefined> {
    this.#viewer.onData = undefined;
    try {
      await action();
    } finally {
      this.#viewer.onData = this.#take;
      this.#viewer.redraw();
    }
  }

  #repl(): Promise<undefined> {
    return this.#away(async () => {
      const { machine, share } = this.#attached;
      this.#vm ??= new Vm({ machine, guest: share.guest });
      const session = new ReplSession(this.#vm, terminalStreams());
      await Promise.race([session.left, machine.ended()]);
      session.close();
    });
  }

  #search(): Promise<undefined> {
    return this.#away(async () => {
      const lines = createInterface({ input: process.stdin, output: process.stdout });
      try {
        const text = await lines.question('search: ');
        if (text === '') return;
        const found = await this.#attached.share.searchConsole(this.#viewer.name, text);
        process.stdout.write(found.length > 0 ? `${found.map(printable).join('\n')}\n` : `"${text}" is not there.\n`);
        await lines.question('Enter comes back. ');
      } finally {
        lines.close();
      }
    });
  }

  async toTheEnd(): Promise<number> {
    const { name } = this.#attached;
    const leave = () => this.#left.resolve('left');
    process.once('SIGTERM', leave);
    process.once('SIGHUP', leave);
    const outcome = await Promise.race([this.#left.promise, whyClosed(this.#viewer)]);
    // A guest that runs on would ask the terminal more, with nobody left to take the answers.
    this.#leaving = true;
    await this.#session.takeAnswer();
    const dropped = outcome === 'left' ? await leaveConsole(this.#viewer, this.#session.typed, name) : '';
    this.#session.end();
    process.stdout.write(`${this.#session.modes.undo()}\r\n`);
    process.stderr.write(dropped);
    process.stderr.write(
      outcome === 'left' ? `[nemu] Left ${name}; ${this.#again} comes back.\n` : `[nemu] ${outcome.why}\n`,
    );
    return EXIT.OK;
  }
}

/** The console's bytes to standard output, and standard input to one that is taken. */
async function pipe(
  { name }: AttachedMachine,
  viewer: SharedConsole,
  recorder: CastRecorder | undefined,
  { take: drives, timestamps }: ConsoleOptions,
): Promise<number> {
  const stamper = timestamps ? new LineStamper({ stamp: () => `${new Date().toISOString()} ` }) : undefined;
  const left = Promise.withResolvers<void>();
  const take = (bytes: Uint8Array) => {
    recorder?.bytes(bytes);
    if (process.stdout.write(stamper?.take(bytes) ?? bytes)) return;
    viewer.onData = undefined;
    process.stdout.once('drain', () => {
      viewer.onData = take;
    });
  };
  viewer.onLost = (count) =>
    void process.stderr.write(`nemu: ${count} bytes were not taken in time; nemu logs ${name} has all.\n`);
  viewer.onData = take;
  // A reader that is gone wants no more.
  process.stdout.on('error', () => left.resolve());
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => left.resolve());
  const typed = new ConsoleInput(viewer, () => typed.waiting === 0 && process.stdin.resume());
  if (drives) {
    process.stdin.on('data', (bytes: Buffer) => {
      typed.send(bytes);
      if (typed.waiting > 0) process.stdin.pause();
    });
  }
  const closed = await Promise.race([left.promise, whyClosed(viewer)]);
  viewer.onData = undefined;
  process.stdin.pause();
  if (!closed) process.stderr.write(await leaveConsole(viewer, typed, name));
  return EXIT.OK;
}
