/** Node's own REPL around a machine: for a person at a terminal, for a script, and for one line of code. */
import assert from 'node:assert/strict';
import { stripTypeScriptTypes } from 'node:module';
import { type REPLServer, Recoverable, start } from 'node:repl';
import { PassThrough } from 'node:stream';
import type { WriteStream } from 'node:tty';
import { inspect, types } from 'node:util';
import { type Context, runInContext } from 'node:vm';
import { NemuError } from '../client/errors.ts';
import { isSettled, stageText } from '../client/live.ts';
import { didYouMean } from '../client/suggest.ts';
import { COMMANDS, commandCode, commandHelp } from './commands.ts';
import { complete, listing } from './completion.ts';
import { Evaluation } from './evaluation.ts';
import { helpOn } from './help.ts';
import { isBareChain, missingMember, mistypedCommand } from './members.ts';
import { prose } from './prose.ts';
import type { Vm } from './vm.ts';

export interface ReplStreams {
  readonly input: NodeJS.ReadableStream;
  readonly output: NodeJS.WritableStream;
  readonly terminal: boolean;
  readonly colors: boolean;
  /** Whether a line says how to begin. */
  readonly greeting?: boolean;
  /** Where what was typed is kept. */
  readonly history?: string;
}

type Callback = (error: Error | null, value?: unknown) => void;
type Eval = (code: string, context: Context, file: string, callback: Callback) => void;

const GREETING = 'help lists the commands; vm? tells of the machine; Ctrl-D leaves';

/** `value?` shows help on a value. */
const QUESTION = /^\s*((?:\(?await\s+)?[\w$.[\]'"(),:-]+)\?\s*$/;
/** The same as a member of something. */
const MEMBER = /^(.+)\.([\w$]+)$/;

export class ReplSession {
  readonly #server: REPLServer;
  readonly #base: Eval;
  readonly #streams: ReplStreams;
  readonly #interactive: boolean;
  readonly #vm: Vm;
  /** Failures of what nobody waited for, since they were asked for last. */
  readonly #strays: Error[] = [];
  readonly #stray = (reason: unknown) => {
    this.#strays.push(errorOf(reason));
  };
  /** What Node's evaluator has not answered yet. */
  #waiting: Callback | undefined;
  /** The evaluation that is under way, and what ends it before its time. */
  #evaluating: { readonly evaluation: Evaluation; readonly end: (why: NemuError) => void } | undefined;
  /** Requests that have not settled, in words. */
  readonly #requests = new Map<number, string>();
  /** The line of the last completion. */
  #completed: string | undefined;
  /** When the person at it has left. */
  readonly left: Promise<void>;

  /** @param streams of a person or a pipe; without them, for `evaluate` alone. */
  constructor(vm: Vm, streams?: ReplStreams) {
    this.#interactive = streams !== undefined;
    this.#vm = vm;
    this.#streams = streams ?? {
      input: new PassThrough(),
      output: new PassThrough(),
      terminal: false,
      colors: false,
    };
    const { input, output, terminal, colors, greeting, history } = this.#streams;
    if (greeting) output.write(`${this.#dim(this.#prose(GREETING))}\n`);
    this.#server = start({
      input,
      output,
      terminal,
      prompt: terminal ? `${vm.name}> ` : '',
      useColors: colors,
      ignoreUndefined: true,
      // A preview evaluates what is half typed, on a machine that runs.
      preview: false,
      // Keys wait while something is awaited; with this, all but Ctrl-C, which ends a loop without end as well.
      breakEvalOnSigint: terminal || !this.#interactive,
      writer: (value: unknown) => this.print(value),
    });
    // What a line of code prints is for whoever ran it.
    if (!this.#interactive) this.#server.context.console = console;
    Object.defineProperty(this.#server.context, 'vm', {
      value: vm,
      configurable: true,
      enumerable: true,
      writable: true,
    });
    Object.defineProperty(this.#server.context, 'assert', { value: assert, configurable: true, writable: true });
    this.#base = this.#server.eval as Eval;
    const server = this.#server as unknown as { eval: Eval; completer: Completer };
    server.eval = (code, context, file, callback) => this.#evaluate(code, context, file, callback);
    const completeCode = server.completer;
    server.completer = (line, callback) => {
      void this.#complete(line, vm).then((words) => {
        if (words) callback(null, words);
        else completeCode.call(this.#server, line, callback);
      });
    };
    this.#server.defineCommand('commands', {
      help: 'Show the commands of the machine',
      action: () => {
        output.write(`${this.#prose(commandHelp())}\n`);
        this.#server.displayPrompt();
      },
    });
    this.#takeErrors();
    if (!this.#interactive) process.on('unhandledRejection', this.#stray);
    if (terminal) {
      this.#takeInterrupts();
      this.#showStages(vm);
    }
    if (history) this.#server.setupHistory(history, () => {});
    this.left = new Promise((resolve) => this.#server.once('exit', resolve));
  }

  /** Words for the end of a line; asked for the same line again, a listing of what each is. */
  async #complete(line: string, vm: Vm): Promise<[string[], string] | undefined> {
    // A machine that has ended tells no names.
    const found = await complete(line, vm).catch(() => undefined);
    const again = line === this.#completed;
    this.#completed = line;
    const text = again && found && listing(found);
    if (!found || !text) return found && [found.words.map(([word]) => word), found.part];
    this.#streams.output.write(`\n${this.#prose(text)}\n`);
    this.#server.displayPrompt(true);
    return [[], found.part];
  }

  /** Each stage of a request as it comes, above the result. */
  #showStages(vm: Vm): void {
    const off = vm.machine.onEvent((event) => {
      if (event.type !== 'request') return;
      const { id, action, device, stage } = event.request;
      const text = this.#prose(stageText(event.request));
      if (isSettled(stage)) this.#requests.delete(id);
      else this.#requests.set(id, `${action} ${device.id}`);
      const shown = `${this.#dim(text)}\n`;
      if (this.#evaluating) {
        this.#streams.output.write(shown);
        return;
      }
      // In place of the line that is being typed, which follows again.
      this.#streams.output.write(`\r\x1b[K${shown}`);
      this.#server.displayPrompt(true);
    });
    this.#server.once('exit', off);
  }

  /** Ctrl-C gives the prompt back, whatever the code waits for; at the prompt it does what Node's does. */
  #takeInterrupts(): void {
    const [atPrompt] = this.#server.listeners('SIGINT') as (() => void)[];
    this.#server.removeAllListeners('SIGINT');
    this.#server.on('SIGINT', () => {
      const under = this.#evaluating;
      if (!under) {
        atPrompt.call(this.#server);
        return;
      }
      if (under.evaluation.interrupted) return;
      const commands = under.evaluation.interrupt();
      under.end(new NemuError('INTERRUPTED', `Interrupted. ${this.#goesOn(commands)}`));
      const waiting = this.#waiting;
      if (!waiting) return;
      // What Node's evaluator awaits it has to end by itself, once it has begun to wait.
      setImmediate(() => this.#waiting === waiting && atPrompt.call(this.#server));
    });
  }

  #goesOn(commands: number): string {
    const requests = [...this.#requests.values()];
    return [
      ...(commands > 0 ? [`The guest is told to end ${commands === 1 ? 'the command' : 'the commands'}.`] : []),
      ...(requests.length > 0
        ? [`The guest may still do what it was asked (${requests.join(', ')}): info requests tells.`]
        : []),
      ...(commands === 0 && requests.length === 0 ? ['What the code waits for is not waited for any more.'] : []),
    ].join(' ');
  }

  /**
   * Node's evaluator gives errors to the REPL's domain in place of its callback; those of no evaluation (a timer's)
   * are told as ever.
   */
  #takeErrors(): void {
    const domain = (this.#server as unknown as { _domain?: NodeJS.EventEmitter })._domain;
    if (!domain) return;
    const others = domain.listeners('error');
    domain.removeAllListeners('error');
    domain.on('error', (thrown: unknown) => {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      // What was thrown may be nothing: it was thrown all the same.
      if (waiting) waiting(errorOf(thrown));
      else if (!this.#interactive) this.#stray(thrown);
      else for (const each of others) each.call(domain, thrown);
    });
  }

  #dim(text: string): string {
    return this.#streams.colors ? `\x1b[2m${text}\x1b[22m` : text;
  }

  /** Text for people, in the width of their terminal. */
  #prose(text: string): string {
    const { output, terminal } = this.#streams;
    return prose(text, terminal ? (output as Partial<WriteStream>).columns : undefined);
  }

  print(value: unknown): string {
    if (value instanceof Help) return this.#prose(value.text);
    return typeof value === 'string' && !this.#interactive
      ? value
      : inspect(value, { colors: this.#streams.colors, depth: 3, maxArrayLength: 200 });
  }

  /** Runs code and awaits what it gives, and what it began with the machine. @throws what it throws. */
  async evaluate(code: string): Promise<unknown> {
    try {
      const value = await this.#once(code.endsWith('\n') ? code : `${code}\n`);
      await this.settle();
      return value;
    } catch (error) {
      throw error instanceof Recoverable ? error.err : error;
    }
  }

  /** What failed of that for which a script did not wait. @throws the first of it. */
  async settle(): Promise<void> {
    const [stray] = await this.#straysOf();
    if (stray) throw stray;
  }

  /** What failed of that for which the code did not wait, once what it began with the machine is done. */
  async #straysOf(): Promise<Error[]> {
    await this.#vm.journal.idle();
    // Unhandled rejections are told when all else of this turn is done.
    await turn();
    await turn();
    return this.#strays.splice(0);
  }

  /** Several lines of which the first is one of the machine's commands. */
  static areCommands(text: string): boolean {
    const lines = text.split('\n').filter((line) => line.trim() !== '');
    return lines.length > 1 && lines[0] !== undefined && isCommand(lines[0]);
  }

  #once(code: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#evaluate(code, this.#server.context, 'eval', (error, value) => (error ? reject(error) : resolve(value)));
    });
  }

  /**
   * Runs the lines of a pipe one after the other, each when the one before has ended, and shows what they give.
   * @param fail told of a failure, in words.
   * @returns whether all went well; after a failure the others are run all the same.
   */
  async runLines(text: string, show: (value: unknown) => void, fail: (text: string) => void): Promise<boolean> {
    let pending = '';
    let well = true;
    const failed = (error: unknown) => {
      well = false;
      fail(this.tell(error));
    };
    for (const line of text.split('\n')) {
      pending += `${line}\n`;
      if (pending.trim() === '') continue;
      try {
        const value = await this.#once(pending);
        if (value !== undefined) show(value);
        for (const stray of await this.#straysOf()) failed(stray);
      } catch (error) {
        // The next line goes on with it.
        if (error instanceof Recoverable) continue;
        failed(error);
      }
      pending = '';
    }
    if (pending.trim() !== '') await this.evaluate(pending).catch(failed);
    return well;
  }

  /** An error in a sentence, or with its stack where that is all there is. */
  tell(error: unknown): string {
    // Errors of code in the REPL's own context are no instances of ours.
    if (!types.isNativeError(error)) return saidOf(error);
    return explain(error, this.#server.context) ?? ownStack(error);
  }

  close(): void {
    process.off('unhandledRejection', this.#stray);
    this.#server.close();
  }

  #evaluate(line: string, context: Context, file: string, callback: Callback): void {
    const evaluation = new Evaluation();
    let interruption: NemuError | undefined;
    let over = false;
    const finish: Callback = (failure, value) => {
      // What comes after an interruption is for nobody.
      if (over) return;
      over = true;
      this.#evaluating = undefined;
      const error = interruption ?? (isInterruption(failure) ? new NemuError('INTERRUPTED', 'Interrupted.') : failure);
      if (!error || !this.#interactive || error instanceof Recoverable) {
        callback(error, value);
        return;
      }
      const explained = explain(error, context);
      if (explained === undefined) callback(error);
      else {
        const text = this.#prose(explained);
        this.#streams.output.write(`${this.#streams.colors ? `\x1b[31m${text}\x1b[39m` : text}\n`);
        callback(null);
      }
    };
    let code: string;
    try {
      const help = /^\s*help(?:\s+([\w-]+)(?:\s+([\w-]+))?)?\s*$/.exec(line);
      if (help) {
        callback(null, new Help(commandHelp(help[1], help[2])));
        return;
      }
      const short = this.#isBound(line, context) ? undefined : commandCode(line.trimEnd());
      if (short !== undefined && this.#streams.terminal) {
        this.#streams.output.write(`${this.#dim(short)}\n`);
      }
      code = short === undefined ? typeless(line) : `${short}\n`;
    } catch (error) {
      finish(error as Error);
      return;
    }
    const question = QUESTION.exec(line);
    const fail = (error: Error) => finish(this.#meant(error, line, code) ?? error);
    const settle = async (value: unknown): Promise<unknown> => {
      const settled = await value;
      if (question) {
        const [, parent, name] = MEMBER.exec(question[1]) ?? [];
        const of = parent === undefined || name === undefined ? undefined : { of: lookUp(parent, context), name };
        return new Help(helpOn(settled, of) ?? `${inspect(settled, { depth: 0 })} has no help.`);
      }
      const missing = settled === undefined && isBareChain(code) ? missingMember(code, this.#vm) : undefined;
      if (missing) throw missing;
      return settled;
    };
    const done: Callback = (error, value) => {
      this.#waiting = undefined;
      // Node's evaluator says null where nothing was thrown.
      if (error !== null) {
        fail(errorOf(error));
        return;
      }
      settle(value).then(
        (settled) => finish(null, settled),
        (reason: unknown) => fail(errorOf(reason)),
      );
    };
    this.#waiting = done;
    const end = (why: NemuError) => {
      interruption = why;
      if (!this.#waiting) finish(why);
    };
    this.#evaluating = { evaluation, end };
    const source = question ? `${question[1]}\n` : code;
    keepingSigint(() => evaluation.run(() => this.#base.call(this.#server, source, context, file, done)));
  }

  /** What was meant by code that names what is not there; undefined for an error of another kind. */
  #meant(error: Error, line: string, code: string): NemuError | undefined {
    if (error instanceof Recoverable) return undefined;
    if (error.name === 'SyntaxError') return mistypedCommand(line);
    return error.name === 'TypeError' ? missingMember(code, this.#vm) : undefined;
  }

  /** A name of the user's own is not the command of that name, unless words follow that are no code. */
  #isBound(line: string, context: Context): boolean {
    const [, name, rest = ''] = /^\s*([a-z]+)(?:\s+(\S.*?))?\s*$/.exec(line) ?? [];
    if (name === undefined || !Object.hasOwn(COMMANDS, name)) return false;
    if (rest !== '' && !/^(in|instanceof)\s/.test(rest)) return false;
    const value = lookUp(name, context);
    // Node's REPL has its modules under their names.
    return value !== undefined && value !== process.getBuiltinModule(name);
  }
}

/**
 * Node's evaluator puts a handler of SIGINT of its own in place of libuv's while code runs that can be interrupted, and
 * leaves the default behind: listeners are heard again when they are put on anew.
 */
function keepingSigint(run: () => void): void {
  const listeners = process.rawListeners('SIGINT') as (() => void)[];
  process.removeAllListeners('SIGINT');
  try {
    run();
  } finally {
    for (const each of listeners) process.on('SIGINT', each);
  }
}

/** What anything that was thrown says. */
const saidOf = (thrown: unknown): string => (typeof thrown === 'string' && thrown !== '' ? thrown : inspect(thrown));
const errorOf = (thrown: unknown): Error => {
  if (types.isNativeError(thrown) || thrown instanceof Error) return thrown;
  const error = new Error(`Thrown: ${saidOf(thrown)}`);
  // It is none of ours: where it was made says nothing.
  delete error.stack;
  return error;
};

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** The value of an expression that does nothing, undefined for one that has none. */
function lookUp(expression: string, context: Context): unknown {
  try {
    return runInContext(expression, context);
  } catch {
    return undefined;
  }
}

/** Node's evaluator was interrupted. */
const isInterruption = (error: Error | null) =>
  (error as NodeJS.ErrnoException | null)?.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED';

const isCommand = (line: string): boolean => {
  try {
    return commandCode(line.trimEnd()) !== undefined;
  } catch {
    return true;
  }
};

class Help {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  [inspect.custom](): string {
    return this.text;
  }
}

type Completer = (line: string, callback: (error: Error | null, result?: [string[], string]) => void) => void;

/** Code without its types; what does not parse is left for the REPL, which may want another line. */
function typeless(code: string): string {
  try {
    return stripTypeScriptTypes(code);
  } catch {
    return code;
  }
}

/** What an error says, and its stack as far as it is in the user's code. */
function ownStack(error: Error): string {
  const lines = (error.stack ?? error.message).split('\n');
  const frame = lines.findIndex((line) => /^\s+at /.test(line));
  const said = frame < 0 ? lines : lines.slice(0, frame);
  const frames = lines.filter((line) => /\((eval|REPL\d*|file:[^)]*\.[cm]?[jt]s):\d|at (eval|REPL\d*):\d/.test(line));
  const own = frames.filter((line) => !OURS.test(line));
  if (!(error instanceof SyntaxError) && error.name !== 'SyntaxError') return [...said, ...own].join('\n').trimEnd();
  // Where it is and what stands there come first in a stack of that kind: what is wrong is what to say first.
  const at = said.findIndex((line) => line.startsWith(`${error.name}: `));
  const source = said.slice(1, Math.max(at, 1)).filter((line) => line.trim() !== '');
  return [...said.slice(Math.max(at, 0)), ...source].join('\n').trimEnd();
}

/** Frames of this program: its bundle, or its sources. */
const OURS = /\/dist\/nemu[\w-]*\.js|\/src\/(repl|cli)\/\w+\.ts/;

/** Errors for people; undefined for one that wants its stack. */
function explain(error: Error, context: Context): string | undefined {
  if (error instanceof NemuError) return error.text;
  const unknown = /^(\w+) is not defined$/.exec(error.message)?.[1];
  if (unknown === undefined) return undefined;
  const near = didYouMean(unknown, [...Object.keys(COMMANDS), 'help', ...Object.keys(context)]);
  return `There is no "${unknown}".${near ? ` Did you mean ${near}?` : ' help lists the commands.'}`;
}
