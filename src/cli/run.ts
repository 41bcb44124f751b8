import { writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isatty, type ReadStream, type WriteStream as TtyWriteStream } from 'node:tty';
import { NemuError } from '../client/errors.ts';
import type { GuestSession } from '../client/guest_session.ts';
import type { ConsoleStream, EndState, MachineClient, MachineEvent } from '../client/machine_client.ts';
import { parseDuration } from '../client/options.ts';
import { CastRecorder } from '../console/asciicast.ts';
import { ttyStdinTransform } from '../lab/tty_stdin.ts';
import { Kernel } from '../repl/kernel.ts';
import { ReplSession } from '../repl/session.ts';
import { Vm } from '../repl/vm.ts';
import {
  ConsoleSession,
  machineCommands,
  parsePrefix,
  prefixName,
  takeOverCommand,
  tellRoles,
} from './console_session.ts';
import { describe } from './describe.ts';
import { EventLog } from './event_log.ts';
import { EXIT, exitStatusOf } from './exit_codes.ts';
import { pipeLines } from './line_pipe.ts';
import { type OutputFile, openOutputFile } from './output_files.ts';
import { type OwnMachine, withOwnMachine } from './own_machine.ts';
import { stateFolder } from './paths.ts';
import type { Place } from './place.ts';
import { terminalStreams } from './repl_run.ts';
import { describeVcpus, printable } from './report.ts';
import type { RunOptions } from './run_options.ts';
import { withoutQuestions } from './terminal_questions.ts';

const PANIC_LINE = /Kernel panic - not syncing[^\r\n]*/;
/** Console bytes kept for messages and for `s`. */
const TAIL_BYTES = 1 << 20;
/** After the guest's end its last bytes are on their way through two rings at most this long. */
const SETTLE_MS = 30;

/**
 * `nemu run`: boots a kernel, with this terminal on its console or a command in it.
 * @returns the exit status.
 */
export async function run(
  kernel: string | undefined,
  command: readonly string[],
  options: RunOptions,
): Promise<number> {
  const prefix = parsePrefix(options.prefix);
  if (prefix === undefined) {
    throw new NemuError('USAGE', `--prefix ${options.prefix} is not a control key.`, {
      hint: 'Write it like ^A or Ctrl-b.',
    });
  }
  const timeout = options.timeout === undefined ? undefined : parseDuration(options.timeout);
  const description = await describe(kernel, command, options);
  if (options.dryRun) {
    process.stdout.write(`${JSON.stringify(description, null, 2)}\n`);
    return EXIT.OK;
  }
  const events = new EventLog(options.json);
  return withOwnMachine(description, command, options, events, (own) =>
    new Run(own, command, options, events, prefix, timeout).toTheEnd(),
  );
}

const STATUS_OF_QUIT = {
  quit: EXIT.OK,
  interrupt: EXIT.INTERRUPTED,
  timeout: EXIT.TIMEOUT,
  panic: EXIT.PANIC,
} as const;

/** How long a machine that is to end may take to say what it was doing. */
const ANSWER_MS = 5000;
/** Of that, how long its kernel may take to tell where that is. */
const SYMBOLS_MS = 3000;

/** What input passes through on its way to a console. */
type Filter = (input: NodeJS.ReadableStream) => NodeJS.ReadableStream;

/**
 * What to try with a guest that prints nothing.
 * @param shown the kernel's console is what the user sees.
 */
export const silenceHint = (cmdline: string, shown: boolean): string =>
  /(^| )quiet( |$)/.test(cmdline) && !/(^| )(loglevel=|ignore_loglevel|debug)/.test(cmdline)
    ? `Its kernel was told to be quiet: --append loglevel=7 ${shown ? 'shows' : 'and -v show'} what it does.`
    : 'If it should have: add console=ttyS0 earlyprintk=ttyS0 with --append, and look that the kernel has CONFIG_SERIAL_8250_CONSOLE.';

/** One run of a machine, from its start to an exit status. */
class Run {
  readonly #own: OwnMachine;
  readonly #place: Place;
  readonly #machine: MachineClient;
  readonly #command: readonly string[];
  readonly #options: RunOptions;
  readonly #events: EventLog;
  readonly #prefix: number;
  readonly #timeoutMs: number | undefined;
  readonly #guest: GuestSession | undefined;
  /** Nothing more goes to the terminal. */
  #leaving = false;
  #session: ConsoleSession | undefined;
  #log: OutputFile | undefined;
  #cast: CastRecorder | undefined;
  #tail = Buffer.alloc(0);
  /** The console's output while a REPL has the terminal. */
  #held: Uint8Array[] | undefined;
  #vm: Vm | undefined;
  #sawOutput = false;
  #panicSeen = false;
  readonly #quit = Promise.withResolvers<'quit' | 'interrupt' | 'timeout' | 'panic'>();

  constructor(
    own: OwnMachine,
    command: readonly string[],
    options: RunOptions,
    events: EventLog,
    prefix: number,
    timeoutMs: number | undefined,
  ) {
    this.#own = own;
    this.#place = own.place;
    this.#machine = own.machine;
    this.#guest = own.guest;
    this.#command = command;
    this.#options = options;
    this.#events = events;
    this.#prefix = prefix;
    this.#timeoutMs = timeoutMs;
  }

  async toTheEnd(): Promise<number> {
    const machine = this.#machine;
    machine.onEvent((event) => this.#event(event));
    const { joinable } = this.#own;
    if (this.#options.log && !joinable) {
      this.#log = openOutputFile(this.#options.log, (error) => this.#say(`The log has ended: ${error.message}`));
    }
    if (this.#options.record && !joinable) {
      this.#cast = new CastRecorder(this.#options.record, process.stdout, machine.description.name, (error) =>
        this.#say(`The recording has ended: ${error.message}`),
      );
    }
    if (this.#guest) {
      this.#guest.onPhase = (phase) => {
        this.#sawOutput = true;
        if (!joinable) this.#events.write({ type: 'guest-phase', ...phase });
      };
      this.#guest.onStatus = (status) => joinable || this.#events.write({ type: 'exit-status', status });
    }
    const restore = this.#command.length > 0 ? this.#connectCommand() : this.#connectConsole();
    const timers = this.#startTimers();
    const signals = this.#handleSignals();
    try {
      const outcome = await Promise.race([this.#own.start().then(() => machine.ended()), this.#quit.promise]);
      if (typeof outcome !== 'string') await this.#settle();
      for (const flush of this.#flushes) flush();
      // A guest that runs on would ask the terminal more, with nobody left to take the answers.
      this.#leaving = true;
      await this.#session?.takeAnswer();
      if (this.#events.active) await this.#writeCounters();
      return typeof outcome === 'string' ? STATUS_OF_QUIT[outcome] : this.#verdict(outcome);
    } finally {
      signals();
      timers();
      restore();
      this.#log?.end();
      this.#cast?.close();
    }
  }

  /** Lets bytes that the guest wrote before its end arrive. */
  async #settle(): Promise<void> {
    let before: number;
    do {
      before = this.#received;
      await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    } while (this.#received !== before);
  }

  #received = 0;
  /** What writes lines that are not whole. */
  readonly #flushes: (() => void)[] = [];

  #verdict(end: EndState): number {
    const panic = end.reason === 'panic' || (this.#panicSeen && ['reset', 'poweroff'].includes(end.reason));
    if (panic) {
      this.#complain(`The guest kernel panicked.${this.#shown() ? '' : `\n${this.#panicLines()}`}`);
      return EXIT.PANIC;
    }
    if (end.reason === 'poweroff' || end.reason === 'reset' || end.reason === 'quit') {
      if (this.#guest?.status !== undefined && this.#command.length > 0) return this.#guest.status;
      if (this.#command.length > 0) {
        this.#complain(`The guest ended before the command did: ${end.detail}\n${this.#lastLines()}`);
        return EXIT.NO_STATUS;
      }
      return EXIT.OK;
    }
    if (end.reason !== 'debug-exit') {
      const registers = end.registers
        ? `\n${Object.entries(end.registers)
            .map(([name, value]) => `${name}=${value}`)
            .join(' ')}`
        : '';
      this.#complain(`${end.detail}${registers}${this.#shown() ? '' : `\n${this.#lastLines()}`}`);
    }
    return exitStatusOf(end.reason, end.exitCode);
  }

  /** Is the kernel's console before the user's eyes anyway? */
  #shown(): boolean {
    return this.#command.length === 0 || Boolean(this.#options.verbose);
  }

  #complain(text: string): void {
    this.#session?.end();
    if (!this.#events.active) process.stderr.write(`nemu: ${text.trimEnd()}\n`);
  }

  #panicLines(): string {
    const text = printable(this.#tail.toString('utf8'));
    const at = text.search(PANIC_LINE);
    // What led to it stands just above.
    const from = at < 0 ? Math.max(0, text.length - 4000) : Math.max(0, text.lastIndexOf('\n', Math.max(0, at - 2000)));
    return text.slice(from).trim();
  }

  #lastLines(): string {
    const lines = printable(this.#tail.toString('utf8')).trim().split(/\r?\n/).slice(-15).join('\n');
    return lines ? `The console's last lines:\n${lines}` : 'The console printed nothing.';
  }

  #event(event: MachineEvent): void {
    if (!this.#own.joinable) this.#events.write(event);
    if (event.type === 'guest-fault' && this.#options.verbose) this.#say(`${event.device}: ${event.text}`);
    if (event.type !== 'reset') return;
    this.#say(`The guest was reset by ${event.cause}.`);
    // It would panic again, and again; what it said should stay on the screen.
    if (this.#panicSeen) {
      this.#complain('The guest kernel panicked.');
      this.#quit.resolve('panic');
    }
  }

  #say(text: string): void {
    if (this.#session) this.#session.say(text);
    else if (!this.#events.active) process.stderr.write(`nemu: ${text}\n`);
  }

  /** Every byte of the kernel's console passes here. */
  #observe(bytes: Uint8Array): void {
    this.#sawOutput = true;
    this.#received += bytes.length;
    this.#log?.write(bytes);
    this.#cast?.bytes(bytes);
    if (!this.#own.joinable) this.#place.recordConsole?.(bytes);
    this.#tail = Buffer.concat([this.#tail, bytes]);
    if (!this.#panicSeen && PANIC_LINE.test(this.#tail.subarray(-bytes.length - 200).toString('latin1'))) {
      this.#panicSeen = true;
    }
    if (this.#tail.length > 2 * TAIL_BYTES) this.#tail = this.#tail.subarray(-TAIL_BYTES);
  }

  /** This terminal, or standard input and output, on the kernel's console. */
  #connectConsole(): () => void {
    const console = this.#own.console('com1');
    console.onLost = (count) => this.#say(`${count} bytes of the console were lost: nobody took them in time.`);
    console.onData = (bytes) => {
      this.#observe(bytes);
      if (this.#held) {
        this.#held.push(bytes);
        return;
      }
      if (this.#leaving) return;
      this.#print(bytes);
    };
    if (!(isatty(0) && isatty(1))) return this.#feedWhenReady(console, (input) => input);
    const shared = 'takeOver' in console ? console : undefined;
    if (shared) {
      shared.onScreen = (screen) => this.#print(screen);
      tellRoles(shared, this.#prefix, (text) => this.#say(text));
    } else this.#guest?.resize(process.stdout.rows, process.stdout.columns);
    this.#session = new ConsoleSession(
      process.stdin as ReadStream,
      process.stdout as unknown as TtyWriteStream,
      console,
      {
        prefix: this.#prefix,
        redraws: shared !== undefined,
        commands: [
          {
            ...{ key: 'x', help: 'quit: end the machine at once', leaves: true },
            run: () => void this.#quit.resolve('quit'),
          },
          ...machineCommands(this.#machine, this.#prefix),
          {
            key: 'c',
            help: 'a REPL on the machine; Ctrl-d comes back',
            takesTerminal: true,
            run: () => this.#repl(),
          },
          { key: 's', help: "save the console's output to a file", run: () => this.#saveLog() },
          ...(shared ? [takeOverCommand(shared)] : []),
        ],
        resized: (rows, columns) => {
          if (shared) shared.resize(rows, columns);
          else this.#guest?.resize(rows, columns);
          this.#cast?.resized(rows, columns);
        },
      },
    );
    if (!this.#options.json)
      process.stderr.write(
        `\x1b[2m[nemu] ${prefixName(this.#prefix)} h for help, ${prefixName(this.#prefix)} x to quit\x1b[0m\r\n`,
      );
    return () => {
      this.#session?.end();
      process.stdout.write(this.#session?.modes.undo() ?? '');
    };
  }

  #print(bytes: Uint8Array): void {
    process.stdout.write(bytes);
    this.#session?.printed(bytes);
  }

  /** Gives the terminal to a REPL; what the guest prints meanwhile is shown when it is left. */
  async #repl(): Promise<undefined> {
    this.#held = [];
    try {
      this.#vm ??= new Vm({ machine: this.#machine, guest: this.#guest });
      const session = new ReplSession(this.#vm, terminalStreams());
      await Promise.race([session.left, this.#machine.ended()]);
      session.close();
    } finally {
      this.#print(withoutQuestions(Buffer.concat(this.#held)));
      this.#held = undefined;
      const console = this.#own.console('com1');
      // What has scrolled by is seen above; the guest's modes and its screen are as they were.
      if ('takeOver' in console) console.redraw();
    }
  }

  async #saveLog(): Promise<string> {
    const path = join(stateFolder(), `console-${new Date().toISOString().replaceAll(':', '')}.log`);
    await mkdir(dirname(path), { recursive: true });
    writeFileSync(path, this.#tail);
    return `Saved ${this.#tail.length} bytes to ${path}.`;
  }

  /** A command: its standard streams are ours; the kernel's console is kept for when something goes wrong. */
  #connectCommand(): () => void {
    const kernel = this.#own.console('com1');
    kernel.onData = (bytes) => {
      this.#observe(bytes);
      if (this.#options.verbose) process.stderr.write(bytes);
    };
    const output = this.#own.console('com2');
    this.#pipe(output, process.stdout);
    this.#pipe(this.#own.console('com3'), process.stderr);
    if (isatty(0) && isatty(1)) {
      const input = process.stdin as ReadStream;
      input.setRawMode(true);
      const stop = this.#feed(output, (stream) => stream);
      const resized = () => this.#guest?.resize(process.stdout.rows, process.stdout.columns);
      process.stdout.on('resize', resized);
      return () => {
        stop();
        process.stdout.off('resize', resized);
        input.setRawMode(false);
      };
    }
    return this.#feedWhenReady(output, (stream) => stream.pipe(ttyStdinTransform()));
  }

  /**
   * Input that nobody types would be lost in the kernel's start, where the driver empties the UART, and echoed or edited
   * before the guest's init has set its terminals up.
   */
  #feedWhenReady(console: ConsoleStream, through: Filter): () => void {
    if (!this.#guest) return this.#feed(console, through);
    let stop = () => {};
    this.#guest.up.then(
      () => {
        stop = this.#feed(console, through);
      },
      // There will be nobody to read it.
      () => {},
    );
    return () => stop();
  }

  #pipe(console: ConsoleStream, to: NodeJS.WriteStream): void {
    const flush = pipeLines(console, to, (count) => {
      this.#received += count;
      this.#sawOutput = true;
    });
    this.#flushes.push(flush);
  }

  /** Standard input to a console, at the guest's pace. */
  #feed(console: ConsoleStream, through: Filter): () => void {
    const source = through(process.stdin);
    let rest: Uint8Array | undefined;
    const send = (bytes: Uint8Array) => {
      const count = console.write(bytes);
      if (count === bytes.length) {
        rest = undefined;
        source.resume();
      } else {
        rest = bytes.subarray(count);
        source.pause();
      }
    };
    console.onWritable = () => rest && send(rest);
    source.on('data', (bytes: string | Buffer) => send(typeof bytes === 'string' ? Buffer.from(bytes) : bytes));
    return () => {
      console.onWritable = undefined;
      process.stdin.pause();
      process.stdin.unref?.();
    };
  }

  #startTimers(): () => void {
    const timers: NodeJS.Timeout[] = [];
    if (this.#timeoutMs !== undefined) {
      timers.push(
        setTimeout(() => {
          const told = this.#explain(`--timeout ${this.#options.timeout} ran out.`);
          void Promise.race([told, sleep(ANSWER_MS)]).then(() => this.#quit.resolve('timeout'));
        }, this.#timeoutMs),
      );
    }
    timers.push(
      setTimeout(() => {
        if (!this.#sawOutput && this.#machine.state === 'running') {
          void this.#explain(
            `The guest has printed nothing for ${this.#place.patience / 1000} s.`,
            silenceHint(this.#machine.description.kernel.cmdline, this.#shown()),
          );
        }
      }, this.#place.patience),
    );
    return () => {
      for (const timer of timers) clearTimeout(timer);
    };
  }

  /** The last event; a machine that no longer answers does not hold us up. */
  async #writeCounters(): Promise<void> {
    const counters = await Promise.race([
      this.#machine.counters().catch(() => undefined),
      sleep(ANSWER_MS, undefined, { ref: false }),
    ]);
    if (counters) this.#events.write({ type: 'counters', ...counters });
  }

  /** Says what the vCPUs are doing. */
  async #explain(what: string, hint?: string): Promise<void> {
    try {
      const vcpus = await this.#machine.inspect();
      if (this.#events.active)
        this.#events.write({ type: 'inspect', what, vcpus, counters: await this.#machine.counters() });
      const where = await describeVcpus(vcpus.slice(0, 8), new Kernel(this.#machine), SYMBOLS_MS);
      this.#say([what, where, hint].filter(Boolean).join('\n'));
    } catch {
      // The machine ended meanwhile, which says more than this could.
    }
  }

  #handleSignals(): () => void {
    const interrupt = () => {
      if (this.#command.length > 0 && this.#guest) this.#guest.signal('INT');
      else this.#quit.resolve('interrupt');
      // A second one does not wait for the guest.
      process.once('SIGINT', () => this.#quit.resolve('interrupt'));
    };
    const terminate = () => this.#quit.resolve('interrupt');
    process.once('SIGINT', interrupt);
    process.once('SIGTERM', terminate);
    process.once('SIGHUP', terminate);
    return () => {
      process.off('SIGINT', interrupt);
      process.off('SIGTERM', terminate);
      process.off('SIGHUP', terminate);
    };
  }
}
