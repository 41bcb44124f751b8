/** `nemu repl`, `nemu run -e` and `--script`: code with a running machine in scope. */
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { NemuError } from '../client/errors.ts';
import { parseDuration } from '../client/options.ts';
import { CastRecorder } from '../console/asciicast.ts';
import { ReplSession, type ReplStreams } from '../repl/session.ts';
import { jsonOf } from '../repl/values.ts';
import { Vm } from '../repl/vm.ts';
import { guardDeadline } from './deadline.ts';
import { describe } from './describe.ts';
import { EventLog, note } from './event_log.ts';
import { EXIT } from './exit_codes.ts';
import { openOutputFile } from './output_files.ts';
import { type OwnMachine, withOwnMachine } from './own_machine.ts';
import { stateFolder } from './paths.ts';
import { printable } from './report.ts';
import type { RunOptions } from './run_options.ts';
import { placeInScript } from './script_file.ts';

/** What to do with the machine: code of a line, a script's file, or what comes on standard input. */
export interface ReplTask {
  readonly eval?: string;
  readonly script?: string;
}

const TAIL_BYTES = 1 << 20;
/** A guest that is ready may have modules that never finish loading. */
const SETTLE_MS = 20_000;
/** How long a guest may take to power off when the code is done. */
const POWER_OFF_MS = 15_000;

/** Standard input and output as a REPL's, with the history of all REPLs. */
export function terminalStreams(): ReplStreams {
  const terminal = Boolean(process.stdin.isTTY && process.stdout.isTTY);
  mkdirSync(stateFolder(), { recursive: true, mode: 0o700 });
  return {
    input: process.stdin,
    output: process.stdout,
    terminal,
    colors: terminal && !process.env.NO_COLOR,
    greeting: terminal,
    ...(terminal && { history: join(stateFolder(), 'repl_history') }),
  };
}

/**
 * Starts a machine, waits until its guest is up, runs the code, and powers off.
 * @returns the exit status: 0, 1 when the code throws, or what the guest's end stands for.
 */
export async function runRepl(kernel: string | undefined, task: ReplTask, options: RunOptions): Promise<number> {
  const timeout = options.timeout === undefined ? undefined : parseDuration(options.timeout);
  const description = await describe(kernel, [], options);
  const events = new EventLog(options.json);
  return withOwnMachine(description, [], options, events, async (own) => {
    const { machine, guest } = own;
    const { tail, close } = keepConsole(own, options, events);
    if (!own.joinable) machine.onEvent((event) => events.write(event));
    const late = Promise.withResolvers<number>();
    const ranOut = `--timeout ${options.timeout} ran out`;
    const off =
      timeout === undefined
        ? () => {}
        : guardDeadline(timeout, `${ranOut} while the code did not wait for anything.`, EXIT.TIMEOUT);
    const timer =
      timeout === undefined
        ? undefined
        : setTimeout(() => {
            off();
            note(events, `${ranOut}. The console's last lines:\n${tail()}`);
            late.resolve(EXIT.TIMEOUT);
          }, timeout);
    void own.interrupted?.then(() => late.resolve(EXIT.INTERRUPTED));
    const work = async () => {
      const up =
        guest && Promise.race([guest.settled, guest.up.then(() => sleep(SETTLE_MS, undefined, { ref: false }))]);
      await own.start();
      await up?.catch((error: NemuError) => {
        throw new NemuError(error.code, `The guest did not come up: ${error.message}\n${tail()}`);
      });
      const vm = new Vm({ machine, guest });
      const status = await perform(vm, task, events);
      if (machine.state === 'running' && guest) {
        void guest.run('sync; poweroff -f').catch(() => {});
        await Promise.race([machine.ended(), sleep(POWER_OFF_MS, undefined, { ref: false })]);
      }
      return status;
    };
    try {
      return await Promise.race([work(), late.promise]);
    } finally {
      off();
      clearTimeout(timer);
      close();
    }
  });
}

/** The console's output goes to the log and the recording, and its end is kept for errors. */
function keepConsole(own: OwnMachine, { log, record, verbose }: RunOptions, events: EventLog) {
  let tail = Buffer.alloc(0);
  const ended = (what: string) => (error: Error) => note(events, `The ${what} has ended: ${error.message}`);
  // A machine that others can join keeps both itself.
  const file = log === undefined || own.joinable ? undefined : openOutputFile(log, ended('log'));
  const cast =
    record === undefined || own.joinable
      ? undefined
      : new CastRecorder(record, process.stdout, own.machine.description.name, ended('recording'));
  own.console('com1').onData = (bytes) => {
    file?.write(bytes);
    cast?.bytes(bytes);
    if (verbose) process.stderr.write(bytes);
    tail = Buffer.concat([tail, bytes]).subarray(-TAIL_BYTES);
  };
  return {
    tail: () => printable(tail.toString('utf8')).trim().split(/\r?\n/).slice(-15).join('\n'),
    close: () => cast?.close(),
  };
}

/** Runs what there is to run with a machine. @returns the exit status. */
export async function perform(vm: Vm, task: ReplTask, events: EventLog): Promise<number> {
  // Whoever reads JSON reads values alone.
  const failed = (text: string) => void (events.active ? process.stderr : process.stdout).write(`${text}\n`);
  if (task.script !== undefined) {
    Object.assign(globalThis, { vm });
    const session = new ReplSession(vm);
    try {
      const module = (await import(pathToFileURL(resolve(task.script)).href)) as { default?: unknown };
      const value = typeof module.default === 'function' ? await module.default(vm) : module.default;
      await session.settle();
      if (value !== undefined && !isNothing(module)) show(value, session, events);
      return EXIT.OK;
    } catch (error) {
      if (error instanceof NemuError) throw error;
      const told = session.tell(error);
      // Code outside of functions, and CommonJS, have frames that a REPL's code has not.
      const place = /\n +at /.test(told) ? undefined : placeInScript(error, task.script);
      throw new NemuError('SCRIPT', `${task.script} failed: ${told}`, {
        ...(place !== undefined && { hint: place }),
        cause: error,
      });
    } finally {
      close(session);
    }
  }
  if (task.eval !== undefined) {
    const session = new ReplSession(vm);
    try {
      if (ReplSession.areCommands(task.eval)) {
        const well = await session.runLines(task.eval, (value) => show(value, session, events), failed);
        return well ? EXIT.OK : EXIT.HOST;
      }
      const value = await session.evaluate(task.eval);
      if (value !== undefined) show(value, session, events);
      return EXIT.OK;
    } catch (error) {
      throw error instanceof NemuError ? error : new NemuError('SCRIPT', session.tell(error), { cause: error });
    } finally {
      close(session);
    }
  }
  if (!process.stdin.isTTY) {
    const session = new ReplSession(vm);
    const text = Buffer.concat(await process.stdin.toArray()).toString('utf8');
    const well = await session.runLines(text, (value) => show(value, session, events), failed);
    session.close();
    return well ? EXIT.OK : EXIT.HOST;
  }
  const session = new ReplSession(vm, terminalStreams());
  await Promise.race([session.left, vm.machine.ended()]);
  session.close();
  return EXIT.OK;
}

/** What the code has left behind may still fail, while the machine ends. */
function close(session: ReplSession): void {
  session.close();
  process.on('unhandledRejection', (reason) => {
    process.stderr.write(`nemu: What the code had begun failed after its end: ${session.tell(reason)}\n`);
  });
}

/** A script without imports and exports is CommonJS to Node, whose exports are an object that nobody made. */
const isNothing = (module: { default?: unknown }) =>
  'module.exports' in module && isDeepStrictEqual(module.default, {});

/** A value on standard output: as it prints, or with --json as JSON, and among the events. */
function show(value: unknown, session: ReplSession, events: EventLog): void {
  const text = events.active ? jsonOf(value) : session.print(value);
  if (events.active) events.write({ type: 'value', value: JSON.parse(text) });
  if (!events.isStdout) process.stdout.write(`${text}\n`);
}
