/** A machine that is known by its name: served to whoever comes, until it ends. */
import { closeSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ReadStream } from 'node:tty';
import type { MachineDescription } from '../../client/description.ts';
import { NemuError } from '../../client/errors.ts';
import { EventHistory } from '../../client/event_history.ts';
import { GuestSession, isAgents } from '../../client/guest_session.ts';
import { isSettled, ramSize } from '../../client/live.ts';
import type { EndState, MachineClient } from '../../client/machine_client.ts';
import { parseDuration } from '../../client/options.ts';
import { CastRecorder } from '../../console/asciicast.ts';
import { ConsoleLog } from '../../console/console_log.ts';
import type { ConsoleTap } from '../../console/hub.ts';
import { MachineConsoles } from '../../console/machine_consoles.ts';
import { PtyBridge, type PtyEnd } from '../../console/pty_bridge.ts';
import { PseudoTerminal } from '../../ffi/pty.ts';
import type { ConsoleTerminal } from '../../qmp/surroundings.ts';
import { serveControl, serveQmpSocket, serveSockets } from '../control_socket.ts';
import { describe } from '../describe.ts';
import { EndSignals } from '../end_signals.ts';
import { EventLog, note } from '../event_log.ts';
import { EXIT, exitStatusOf } from '../exit_codes.ts';
import { GdbListener, gdbOption, startMachine } from '../gdb_listener.ts';
import { checkOutputFiles } from '../output_files.ts';
import { openPlace, type Place } from '../place.ts';
import { labProgress } from '../progress.ts';
import type { RunOptions } from '../run_options.ts';
import { runtimePaths, statePaths } from './folders.ts';
import { claimName, noteRunFolder } from './name_lock.ts';
import { findMachine, type MachineRecord, writeRecord } from './records.ts';
import type { Starter } from './starter.ts';

const DEFAULT_NAME = 'nemu';
/** Machines that nobody named. */
const MAX_UNNAMED = 1000;
/** The guest's last bytes are on their way so long. */
const SETTLE_MS = 50;
/** How often what a crash would leave is brought up to date, where the engine does not do so itself. */
const COUNTERS_MS = 10_000;

/** A console's log has so many bytes, and so many before them. */
const LOG_BYTES = 64 << 20;

/**
 * Runs a machine by its name until it ends.
 * @param starter told when it runs, or why not.
 * @returns the exit status, as of `nemu run`.
 * @throws NemuError when it cannot be started and nobody waits to be told.
 */
export async function serve(
  kernel: string | undefined,
  command: readonly string[],
  options: RunOptions,
  starter: Starter | undefined,
): Promise<number> {
  try {
    // A mistake in it is told before anything is made.
    if (options.timeout !== undefined) parseDuration(options.timeout);
    gdbOption(options);
    checkOutputFiles(options);
    const asked = await describe(kernel, command, options, true);
    const { name, release } = takeName(asked.name);
    try {
      return await serveNamed({ ...asked, name }, command, options, starter);
    } finally {
      release();
    }
  } catch (error) {
    const told = error instanceof NemuError ? error : new NemuError('ENGINE', String((error as Error).stack ?? error));
    if (!starter) throw told;
    starter.failed(told);
    return EXIT.HOST;
  }
}

/** @throws NemuError MACHINE for a name that another has. */
export function takeName(asked: string): { name: string; release: () => void } {
  const names =
    asked === DEFAULT_NAME
      ? Array.from({ length: MAX_UNNAMED }, (_, index) => (index === 0 ? asked : `${asked}-${index + 1}`))
      : [asked];
  for (const name of names) {
    const crashed = findMachine(name)?.status === 'crashed';
    if (crashed && names.length > 1) continue;
    if (crashed) {
      throw new NemuError('MACHINE', `A machine ${name} has crashed, and what it left is still there.`, {
        hint: `nemu logs ${name} shows it, nemu rm ${name} removes it.`,
      });
    }
    const release = claimName(name);
    if (release) return { name, release };
  }
  throw new NemuError('MACHINE', `A machine ${asked} runs already.`, {
    hint: `nemu attach ${asked} shows it; --name gives this one another name.`,
  });
}

async function serveNamed(
  description: MachineDescription,
  command: readonly string[],
  options: RunOptions,
  starter: Starter | undefined,
): Promise<number> {
  const { name } = description;
  const events = new EventLog(options.json);
  const { status } = await runNamed(
    { description, command, options, events, ...(starter?.log !== undefined && { engineLog: starter.log }) },
    async ({ served, machine, started, interrupted }) => {
      const wait = gdbOption(options)?.wait ?? false;
      const running = startMachine(machine, wait, () => {
        started();
        starter?.ready(name);
        if (!starter) note(events, `The machine ${name} ${wait ? 'waits for gdb' : 'runs'}: nemu attach ${name}`);
      });
      // Whoever started it does not wait for gdb, and the end may come before.
      if (!wait) await running;
      return served.toTheEnd(interrupted);
    },
  );
  return status;
}

export interface NamedRun {
  readonly description: MachineDescription;
  readonly command: readonly string[];
  readonly options: RunOptions;
  readonly events: EventLog;
  /** Consoles that are its starter's alone. */
  readonly own?: readonly string[];
  /** Where the engine's own output goes, to be kept with the rest. */
  readonly engineLog?: string;
}

/** A machine that everybody may come to, before its start. */
export interface Named {
  readonly served: ServedMachine;
  readonly machine: MachineClient;
  readonly place: Place;
  /** It runs: from now on what it leaves is kept. */
  started(): void;
  /** A signal asks for its end. */
  readonly interrupted: Promise<void>;
}

export interface NamedEnd {
  readonly end: EndState;
  readonly status: number;
}

/**
 * Makes a machine whose name was taken, serves it, and writes down what becomes of it.
 * @param drive starts it, and has its end.
 */
export async function runNamed(
  { description, command, options, events, own = [], engineLog }: NamedRun,
  drive: (named: Named) => Promise<NamedEnd>,
): Promise<NamedEnd> {
  const { name } = description;
  const state = statePaths(name);
  noteRunFolder(name);
  rmSync(state.folder, { recursive: true, force: true });
  mkdirSync(state.folder, { recursive: true, mode: 0o700 });
  if (engineLog !== undefined) renameSync(engineLog, state.engine);
  let record: MachineRecord = {
    ...{ name, pid: process.pid, startedAt: new Date().toISOString(), running: false },
    ...{ kernel: description.kernel.image, cpus: description.cpus.count, memory: description.memory.size },
    consoles: [],
    ...(command.length > 0 && { command: [...command] }),
  };
  const update = (more: Partial<MachineRecord>) => {
    record = { ...record, ...more };
    writeRecord(record);
  };
  update({});
  const forget = () => rmSync(state.folder, { recursive: true, force: true });
  const signals = new EndSignals(forget);
  try {
    const place = await openPlace(options.on, { vcpus: description.cpus.count, progress: labProgress(events) });
    try {
      if (place.reason) note(events, `This host's KVM cannot run stock kernels (${place.reason}); using the lab.`);
      const machine = await place.create(description, { postMortem: state.postMortem });
      const served = new ServedMachine({ machine, place, command, options, events, own });
      const offSizes = machine.onEvent(async (event) => {
        if (event.type !== 'memory-size' && !(event.type === 'request' && isSettled(event.request.stage))) return;
        // What lists machines, and what tells of one that was killed, has it as it was at last.
        const here = await machine.plugged().catch(() => undefined);
        if (here && !record.end) update({ cpus: here.cpus.present.length, memory: ramSize(here.memory) });
      });
      try {
        await served.open();
        signals.hold();
        const started = () => update({ running: true, place: place.kind, consoles: [...served.consoles.names] });
        const ended = await drive({ served, machine, place, started, interrupted: signals.came });
        const { end, status } = ended;
        update({ end: { at: new Date().toISOString(), reason: end.reason, detail: end.detail, status } });
        if (end.reason !== 'engine-error') rmSync(state.postMortem, { force: true });
        return ended;
      } finally {
        offSizes();
        await served.close();
        await machine.close();
      }
    } finally {
      await place.close();
    }
  } finally {
    // One that never ran leaves nothing to look at.
    if (!record.running) forget();
  }
}

interface ServedParts {
  readonly machine: MachineClient;
  readonly place: Place;
  readonly command: readonly string[];
  readonly options: RunOptions;
  readonly events: EventLog;
  /** Consoles that are not handed out. */
  readonly own: readonly string[];
}

/** A machine's consoles, guest and history, for whoever comes. */
export class ServedMachine {
  readonly consoles: MachineConsoles;
  readonly #machine: MachineClient;
  readonly #place: Place;
  readonly #command: readonly string[];
  readonly #options: RunOptions;
  readonly guest: GuestSession | undefined;
  readonly #history: EventHistory;
  readonly #say: (text: string) => void;
  readonly #ends: (() => void | Promise<void>)[] = [];
  /** The guest has ended, and its last bytes have come. */
  readonly #settled: Promise<void>;
  /** Those at its consoles have seen them, too. */
  readonly #over: Promise<void>;
  readonly #quit = Promise.withResolvers<number>();
  #received = 0;

  constructor({ machine, place, command, options, events, own }: ServedParts) {
    this.#machine = machine;
    this.#place = place;
    this.#command = command;
    this.#options = options;
    this.guest = GuestSession.of(machine);
    this.#history = this.#keepHistory(events);
    this.#say = (text) => {
      this.#history.note(text);
      note(events, text);
    };
    const terminal = command.length > 0 ? 'com2' : 'com1';
    this.consoles = new MachineConsoles(machine, {
      names: machine.consoles.filter((console) => !(this.guest && isAgents(console)) && !own.includes(console)),
      terminal: (console) => this.#pseudoTerminal(console),
      taps: (console) => this.#taps(console),
      viewers: (console, text) => this.#history.note(`${console}: ${text}`),
      // The guest's own init has been asked for this terminal, and can set its size.
      resized: (console, rows, columns) => {
        if (console === terminal) this.guest?.resize(rows, columns);
      },
    });
    this.#ends.push(() => this.consoles.close());
    this.#settled = machine.ended().then(() => this.#settle());
    this.#over = this.#settled.then(() => this.consoles.finish(machine.end?.detail ?? 'The machine has ended.'));
  }

  get #name(): string {
    return this.#machine.description.name;
  }

  #keepHistory(events: EventLog): EventHistory {
    const history = new EventHistory(this.#machine, this.guest);
    const file = openSync(statePaths(this.#name).events, 'a', 0o600);
    let open = true;
    history.onEvent = (event) => {
      events.write(event);
      if (!open) return;
      try {
        writeSync(file, `${JSON.stringify(event)}\n`);
      } catch (error) {
        open = false;
        process.stderr.write(`nemu: no more events are written down: ${(error as Error).message}\n`);
      }
    };
    this.#ends.push(() => {
      history.close();
      open = false;
      closeSync(file);
    });
    return history;
  }

  #taps(console: string): ConsoleTap[] {
    const ended = (what: string) => (error: Error) => this.#history.note(`${console}: ${what}: ${error.message}`);
    const { record, log } = this.#options;
    const kernel = console === 'com1';
    return [
      {
        bytes: (bytes) => {
          this.#received += bytes.length;
          if (kernel) this.#place.recordConsole?.(bytes);
        },
        lost: (count) => this.#history.note(`${console}: ${count} bytes were lost before anybody could take them.`),
      },
      new ConsoleLog(statePaths(this.#name).console(console), ended('the log has ended'), LOG_BYTES),
      ...(kernel && log !== undefined ? [new ConsoleLog(log, ended('the log has ended'))] : []),
      ...(kernel && record !== undefined
        ? [new CastRecorder(record, {}, this.#name, ended('the recording has ended'))]
        : []),
    ];
  }

  /** Everybody may come from now on. */
  async open(): Promise<void> {
    const shared = { consoles: this.consoles, guest: this.guest, history: this.#history };
    const { control, qmp } = runtimePaths(this.#name);
    this.#ends.push(await serveControl(control, this.#machine, shared));
    const gdbServer = new GdbListener(this.#machine);
    this.#ends.push(() => gdbServer.close());
    const surroundings = { consoles: this.consoles, terminal: () => this.#terminal(), gdbServer };
    this.#ends.push(await serveQmpSocket(qmp, this.#machine, surroundings));
    const say = (text: string) => this.#say(text);
    this.#ends.push(await serveSockets(this.#machine, this.#options, say, shared, surroundings));
  }

  #pseudoTerminal(console: string): PtyEnd | undefined {
    try {
      return ptyEnd(new PseudoTerminal());
    } catch (error) {
      this.#history.note(`${console} has no pseudo-terminal: ${(error as Error).message}`);
      return undefined;
    }
  }

  #terminal(): ConsoleTerminal {
    const end = ptyEnd(new PseudoTerminal());
    let bridge: PtyBridge | undefined;
    return {
      path: end.path,
      connect: (console) => {
        bridge = new PtyBridge(this.consoles.hub(console), end);
      },
      close: () => (bridge ?? end).close(),
    };
  }

  /** Waits until the guest, a signal or the time ends the machine. */
  async toTheEnd(interrupted: Promise<void>): Promise<NamedEnd> {
    void interrupted.then(() => this.#quit.resolve(EXIT.OK));
    const { timeout } = this.#options;
    const timer =
      timeout === undefined
        ? undefined
        : setTimeout(() => {
            this.#history.note(`--timeout ${timeout} ran out.`);
            this.#quit.resolve(EXIT.TIMEOUT);
          }, parseDuration(timeout));
    const counters = setInterval(() => void this.#recordCounters(), COUNTERS_MS);
    try {
      const first = await Promise.race([this.#machine.ended(), this.#quit.promise]);
      if (typeof first === 'number') await this.#machine.close();
      else await this.#settled;
      const end = typeof first === 'number' ? await this.#machine.ended() : first;
      return { end, status: typeof first === 'number' ? first : this.statusOf(end) };
    } finally {
      clearTimeout(timer);
      clearInterval(counters);
    }
  }

  async #recordCounters(): Promise<void> {
    const { recordCounters } = this.#place;
    if (recordCounters) await this.#machine.counters().then(recordCounters, () => {});
  }

  /** Lets bytes that the guest wrote before its end arrive. */
  async #settle(): Promise<void> {
    let before: number;
    do {
      before = this.#received;
      await sleep(SETTLE_MS);
    } while (this.#received !== before);
  }

  /** The exit status that an end stands for. */
  statusOf(end: EndState): number {
    if (this.#command.length > 0 && ['poweroff', 'reset', 'quit'].includes(end.reason)) {
      return this.guest?.status ?? EXIT.NO_STATUS;
    }
    return exitStatusOf(end.reason, end.exitCode);
  }

  async close(): Promise<void> {
    await (this.#machine.end ? this.#over : this.consoles.finish('The machine has ended.'));
    for (const end of this.#ends.toReversed()) await end();
  }
}

/** A pseudo-terminal as the console's bridge has it. */
export function ptyEnd(terminal: PseudoTerminal): PtyEnd {
  return {
    path: terminal.path,
    get connected() {
      return terminal.connected;
    },
    get written() {
      return terminal.written;
    },
    forget: () => terminal.forget(),
    write: (bytes) => terminal.write(bytes),
    listen: (onData, onClose) => {
      // It ends by an error when the program closes the terminal, and takes its descriptor with it.
      const stream = new ReadStream(terminal.duplicate());
      stream.on('data', onData);
      stream.on('error', () => {});
      stream.once('close', onClose);
      return {
        pause: () => stream.pause(),
        resume: () => stream.resume(),
        close: () => stream.destroy(),
      };
    },
    close: () => terminal.close(),
  };
}
