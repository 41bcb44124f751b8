import type { ReadStream, WriteStream } from 'node:tty';
import { ConsoleInput } from '../client/console_input.ts';
import type { ConsoleStream, MachineClient } from '../client/machine_client.ts';
import type { SharedConsole } from '../client/shared_console.ts';
import {
  isReport,
  PASTE_BEGINS,
  PASTE_ENDS,
  TerminalLexer,
  type TypedKey,
  type TypedPiece,
  typedKey,
} from '../console/terminal_lexer.ts';
import { GuestModes } from '../console/terminal_modes.ts';
import { Kernel } from '../repl/kernel.ts';
import { describeVcpus } from './report.ts';
import { TerminalQuestions } from './terminal_questions.ts';

/** What a key behind the prefix does. */
export interface SessionCommand {
  readonly key: string;
  readonly help: string;
  /** @returns what there is to say of it. */
  run(): Promise<string | undefined> | string | undefined;
  /** Has the terminal until its promise resolves. */
  readonly takesTerminal?: boolean;
  /** What is typed behind it is for nobody. */
  readonly leaves?: boolean;
}

export interface SessionOptions {
  readonly commands: readonly SessionCommand[];
  readonly prefix?: number;
  /** A key that leaves at once, by its byte, and what it does. */
  readonly leave?: { readonly key: number; readonly help: string; run(): void };
  /** The terminal has a new size. */
  resized(rows: number, columns: number): void;
  /** The screen is drawn anew, with the guest's modes, behind a command that had the terminal. */
  readonly redraws?: boolean;
}

const CONTROL_A = 1;

/**
 * A prefix key from `^A`, `Ctrl-a`, `ctrl-]` and the like.
 * @returns its byte, or undefined when that is no control key.
 */
export function parsePrefix(text: string): number | undefined {
  const match = /^(?:\^|ctrl-|c-)([a-z[\]\\^_@])$/i.exec(text.trim());
  return match ? match[1].toUpperCase().charCodeAt(0) & 0x1f : undefined;
}

/** A terminal answers at once; one on a busy machine takes its time. */
const ANSWER_MS = 1500;

/** What can be done to any machine from its console. */
export function machineCommands(machine: MachineClient, prefix: number): SessionCommand[] {
  // It keeps the symbols that it has read.
  const kernel = new Kernel(machine);
  return [
    {
      key: 'p',
      help: 'pause or resume',
      run: async () => {
        if (machine.state === 'paused') {
          await machine.resume();
          return 'Running.';
        }
        await machine.pause();
        return `Paused; ${prefixName(prefix)} p resumes.`;
      },
    },
    {
      key: 'o',
      help: 'press the power button',
      run: async () => {
        await machine.powerButton();
        return 'The power button was pressed.';
      },
    },
    {
      key: 'r',
      help: 'reset',
      run: async () => {
        await machine.reset();
        return 'Reset.';
      },
    },
    {
      key: 'i',
      help: 'what the vCPUs are doing',
      run: async () => describeVcpus(await machine.inspect(), kernel),
    },
  ];
}

/** Of a console that others may drive too. */
export const takeOverCommand = (console: SharedConsole): SessionCommand => ({
  key: 't',
  help: 'take the console over',
  run: () => {
    if (console.role === 'driver') return 'You drive it already.';
    console.takeOver();
    return undefined;
  },
});

/**
 * Tells who drives a console as that changes.
 * @param prefix of the key that takes it over, for one who may drive.
 */
export function tellRoles(console: SharedConsole, prefix: number | undefined, say: (text: string) => void): void {
  let drove = console.role === 'driver';
  console.onRole = (role, why) => {
    const key = prefix === undefined ? '' : ` ${prefixName(prefix)} t takes it ${drove ? 'back' : 'over'}.`;
    drove = role === 'driver';
    say(drove ? `${why} You drive it now.` : `${why}${key}`);
  };
}

/** `Ctrl-a` for 1, as people say it. */
export const prefixName = (byte: number): string => `Ctrl-${String.fromCharCode(byte + 64).toLowerCase()}`;

/**
 * This terminal on one console of a guest: raw both ways, with a prefix key for the machine's own commands.
 * `end` puts the terminal back; it is safe to call more than once.
 */
export class ConsoleSession {
  readonly #input: ReadStream;
  readonly #output: WriteStream;
  readonly #typed: ConsoleInput;
  readonly #options: SessionOptions;
  readonly #prefix: string;
  readonly #leaveKey: string | undefined;
  readonly #lexer = new TerminalLexer((piece) => this.#piece(piece), {
    holdEscape: false,
    done: () => this.#sendTyped(),
  });
  #escaped = false;
  /** What comes behind the key that leaves is for nobody. */
  #left = false;
  /** What was typed since bytes were given on last. */
  #typedNow = '';
  /** The terminal is ours. */
  #held = false;
  /** What was typed at once with the command that gave the terminal away. */
  #ahead = '';
  #ended = false;
  readonly #questions = new TerminalQuestions();
  /** What the guest has done to the terminal. */
  readonly modes = new GuestModes();
  /** A process that ends by an error leaves the shell a terminal as it was. */
  readonly #restore = () => this.#output.write(this.modes.undo());

  constructor(input: ReadStream, output: WriteStream, console: ConsoleStream, options: SessionOptions) {
    this.#input = input;
    this.#output = output;
    this.#typed = new ConsoleInput(console);
    this.#options = options;
    this.#prefix = String.fromCharCode(options.prefix ?? CONTROL_A);
    this.#leaveKey = options.leave && String.fromCharCode(options.leave.key);
    this.#take();
  }

  #take(): void {
    this.#held = true;
    this.#input.setRawMode(true);
    this.#input.resume();
    this.#input.on('data', this.#keys);
    process.once('exit', this.#restore);
    this.#output.on('resize', this.#resized);
  }

  #give(): void {
    this.#held = false;
    process.off('exit', this.#restore);
    this.#input.off('data', this.#keys);
    this.#output.off('resize', this.#resized);
    this.#input.setRawMode(false);
    this.#input.pause();
  }

  get help(): string {
    const name = prefixName(this.#prefix.charCodeAt(0));
    const { leave, commands } = this.#options;
    return [
      ...(leave ? [`${prefixName(leave.key)}    ${leave.help}`] : []),
      `${name} h  this help`,
      ...commands.map(({ key, help }) => `${name} ${key}  ${help}`),
      `${name} ${name}  send ${name} to the guest`,
    ].join('\r\n');
  }

  /** A line of ours, apart from what the guest prints. */
  say(text: string): void {
    this.#output.write(`\r\n\x1b[2m[nemu]\x1b[0m ${text.replaceAll(/\r?\n/g, '\r\n')}\r\n`);
  }

  readonly #resized = (): void => this.#options.resized(this.#output.rows, this.#output.columns);

  /** What the guest prints passes here on its way to the terminal. */
  printed(bytes: Uint8Array): void {
    this.modes.saw(bytes);
    this.#questions.printed(bytes);
  }

  /** Takes the terminal's answers to the guest's last questions: the next shell would read them as keys. */
  async takeAnswer(): Promise<void> {
    if (!this.#ended) await this.#questions.answered(ANSWER_MS, (question) => this.#output.write(question));
  }

  readonly #keys = (bytes: Buffer): void => {
    this.#questions.typed(bytes);
    this.#lexer.take(bytes);
    if (this.#held) return;
    // For whoever has the terminal now.
    const ahead = this.#ahead + this.#lexer.close();
    this.#ahead = '';
    if (ahead !== '') this.#input.unshift(Buffer.from(ahead, 'latin1'));
  };

  #piece(piece: TypedPiece): void {
    const { kind, bytes } = piece;
    if (this.#left) return;
    if (kind === 'paste') {
      // The guest has asked the terminal for the marks, and no key of a paste is one of ours.
      this.#pass(`${piece.first ? PASTE_BEGINS : ''}${bytes}${piece.last ? PASTE_ENDS : ''}`);
      return;
    }
    const key = typedKey(piece);
    if (!this.#held) this.#pass(bytes);
    else if (this.#escaped) this.#behindPrefix(piece, key);
    // Esc may have come right before it.
    else if (kind === 'sequence' && bytes.length === 2 && this.#isOurs(bytes[1])) {
      this.#pass(bytes[0]);
      this.#ours(bytes[1]);
    } else if (key && !key.silent && this.#isOurs(key.character)) this.#ours(key.character);
    else this.#pass(bytes);
  }

  /** What is not for us goes to the guest, or to whoever has the terminal by then. */
  #pass(bytes: string): void {
    if (this.#held) this.#typedNow += bytes;
    else this.#ahead += bytes;
  }

  #isOurs(character: string): boolean {
    return character === this.#prefix || character === this.#leaveKey;
  }

  #ours(character: string): void {
    if (character === this.#prefix) {
      this.#escaped = true;
      return;
    }
    this.#sendTyped();
    this.#left = true;
    this.#options.leave?.run();
  }

  #behindPrefix(piece: TypedPiece, key: TypedKey | undefined): void {
    const { kind, bytes } = piece;
    // The prefix is let go, or Shift pressed, before the key that is meant; or the guest gets an answer.
    if (key?.silent) return;
    if (isReport(piece)) {
      this.#pass(bytes);
      return;
    }
    this.#escaped = false;
    const character = kind === 'text' ? bytes[0] : (key?.character ?? bytes);
    this.#sendTyped();
    if (character === this.#prefix) this.#pass(bytes);
    else this.#command(character.toLowerCase());
    if (kind === 'text' && !this.#left) this.#pass(bytes.slice(1));
  }

  /** What was typed so far goes to the console. */
  #sendTyped(): void {
    const typed = this.#typedNow;
    this.#typedNow = '';
    this.send(Buffer.from(typed, 'latin1'));
  }

  /** Types for the user, behind what the user has typed. */
  send(bytes: Uint8Array): void {
    this.#typed.send(bytes);
  }

  #command(key: string): void {
    const name = prefixName(this.#prefix.charCodeAt(0));
    const command = this.#options.commands.find((each) => each.key === key);
    this.#left = command?.leaves ?? false;
    if (command) void this.#run(command);
    else if (key === 'h' || key === '?') this.say(`\n${this.help}`);
    else this.say(`There is no ${name} ${JSON.stringify(key)}; ${name} h shows what there is.`);
  }

  async #run(command: SessionCommand): Promise<void> {
    if (command.takesTerminal) {
      this.#give();
      // The guest's mouse, keyboard protocol and screen are not the other one's, where they can be had again.
      this.#output.write(`${this.#options.redraws ? this.modes.undo() : ''}\r\n`);
    }
    const said = await Promise.resolve()
      .then(() => command.run())
      .catch((error: Error) => error.message);
    if (this.#ended) return;
    if (command.takesTerminal) {
      this.#take();
      this.#resized();
    }
    if (said !== undefined) this.say(said);
  }

  /** What was typed, as far as the console has not taken it. */
  get typed(): ConsoleInput {
    return this.#typed;
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#lexer.close();
    this.#typed.drop();
    this.#give();
  }
}
