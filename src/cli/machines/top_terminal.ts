/** `nemu top` on a terminal: keys in, frames out, and the terminal handed to other commands and taken back. */
import { RESET_MODES } from '../../console/terminal_modes.ts';
import { PASTE_OFF, PASTE_ON, TerminalInput } from '../../tui/input.ts';
import { isUnicode } from '../../tui/locale.ts';
import { lineOf } from '../../tui/overlays/overlay.ts';
import { paint, type Style, type Theme, themeNamed } from '../../tui/style.ts';
import { runApart, runHere } from '../own_command.ts';
import type { Load, Order } from './loads.ts';
import { listMachines } from './records.ts';
import { type TopAction, TopScreen } from './top_screen.ts';

const ALTERNATE_ON = `\x1b[?1049h\x1b[?7l\x1b[?25l${PASTE_ON}`;
const ALTERNATE_OFF = `${PASTE_OFF}\x1b[?7h\x1b[?25h\x1b[?1049l`;
const NOTICE_MS = 8000;

/** Commands that have the terminal for themselves. */
const HANDED = {
  attach: (name: string) => ['attach', name],
  console: (name: string) => ['console', name],
  logs: (name: string) => ['logs', '-f', '-n', '1000', name],
} as const;

const DEEDS = {
  stop: { asked: (name: string) => `The guest of ${name} is asked to power off …`, done: 'has powered off' },
  kill: { asked: (name: string) => `${name} is being ended …`, done: 'has been ended' },
} as const;

export class TopTerminal {
  readonly #screen: TopScreen;
  readonly #theme: Theme = themeNamed(process.env.NO_COLOR ? 'plain' : 'dark');
  readonly #left: AbortController;
  readonly #keys = new TerminalInput();
  /** The rows as the terminal shows them. */
  #painted: readonly string[] = [];
  /** The terminal is ours. */
  #held = false;
  /** A command has the terminal. */
  #handed: Promise<void> | undefined;
  #interrupted = false;
  #drawSoon: Promise<void> | undefined;
  /** Commands that have not told yet what came of them. */
  #deeds = 0;
  #noticeTimer: NodeJS.Timeout | undefined;

  /** @param left is aborted when the user leaves, and by others who have this end. */
  constructor(order: Order, left: AbortController) {
    this.#screen = new TopScreen({ unicode: isUnicode(), order });
    this.#left = left;
    this.#keys.onKey = (name, text) => this.#pressed(name, text);
    this.#keys.onPaste = (text) => {
      this.#screen.paste(lineOf(text));
      this.#draw();
    };
    // A terminal that has gone takes nothing, and sends SIGHUP.
    for (const stream of [process.stdin, process.stdout]) stream.on('error', this.#leave);
    process.on('SIGINT', this.#interrupt);
    for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, this.#leave);
    process.stdout.on('resize', this.#resized);
    this.#hold();
  }

  /** Shows what machines do now. */
  show(loads: readonly Load[]): void {
    this.#screen.take(loads);
    this.#draw();
  }

  /** Gives the terminal back for good, when the command that may have it has ended. */
  async close(): Promise<void> {
    await this.#handed;
    this.#release();
    clearTimeout(this.#noticeTimer);
    process.stdout.off('resize', this.#resized);
    process.off('SIGINT', this.#interrupt);
    for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.off(signal, this.#leave);
  }

  readonly #leave = () => this.#left.abort();

  /** Ctrl-C is a key here, and a signal to all that are in the terminal while a command has it. */
  readonly #interrupt = () => {
    this.#interrupted = true;
    if (this.#held) this.#leave();
  };

  readonly #take = (bytes: Buffer) => this.#keys.take(bytes);

  readonly #resized = () => {
    this.#painted = [];
    this.#draw();
  };

  #hold(): void {
    this.#held = true;
    this.#painted = [];
    process.stdin.setRawMode?.(true);
    process.stdin.on('data', this.#take);
    process.stdin.resume();
    process.once('exit', this.#restore);
    process.stdout.write(ALTERNATE_ON);
    this.#draw();
  }

  #release(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#keys.close();
    process.stdin.off('data', this.#take);
    process.stdin.setRawMode?.(false);
    process.stdin.pause();
    process.off('exit', this.#restore);
    this.#restore();
  }

  /** A process that ends by an error gives the terminal back too. */
  readonly #restore = () => process.stdout.write(ALTERNATE_OFF);

  /** Writes the rows that are others than before. */
  #draw(): void {
    if (!this.#held) return;
    const { rows, columns } = process.stdout;
    // Some terminals do not tell their size.
    const painted = this.#screen.frame(columns || 80, rows || 24).map((line) => paint(line, this.#theme));
    let text = this.#painted.length === painted.length ? '' : '\x1b[2J';
    for (const [row, shown] of painted.entries()) {
      if (shown !== this.#painted[row]) text += `\x1b[${row + 1};1H${shown}`;
    }
    this.#painted = painted;
    if (text !== '') process.stdout.write(text);
  }

  #pressed(name: string, text: string): void {
    // What was typed at once with the key that hands the terminal over was for the other command.
    if (!this.#held) return;
    const action = this.#screen.key(name, text);
    if (action) this.#act(action);
    // Keys that came at once are one frame.
    this.#drawSoon ??= Promise.resolve().then(() => {
      this.#drawSoon = undefined;
      this.#draw();
    });
  }

  #act(action: TopAction): void {
    switch (action.kind) {
      case 'leave':
        this.#leave();
        return;
      case 'redraw':
        this.#painted = [];
        return;
      case 'stop':
      case 'kill':
        void this.#end(action.kind, action.name);
        return;
      default:
        this.#release();
        this.#handed = this.#handOver(action.kind, action.name).finally(() => {
          this.#handed = undefined;
        });
    }
  }

  async #handOver(kind: keyof typeof HANDED, name: string): Promise<void> {
    this.#interrupted = false;
    let problem: string | undefined;
    try {
      const status = await runHere(HANDED[kind](name), this.#left.signal);
      // What it said last is to be read: an error, or a log that has come to its end.
      const over = kind === 'logs' && !this.#interrupted;
      if ((status !== 0 && !this.#interrupted) || over) await this.#anyKey();
    } catch (error) {
      problem = (error as Error).message;
    }
    if (this.#left.signal.aborted) return;
    process.stdout.write(RESET_MODES);
    this.#hold();
    if (problem !== undefined) this.#say(problem, 'bad');
  }

  /** Waits for a key below what another command has printed. */
  async #anyKey(): Promise<void> {
    const pressed = Promise.withResolvers<void>();
    const { signal } = this.#left;
    if (signal.aborted) return;
    process.stdout.write(`${RESET_MODES}\r\n[nemu] Any key comes back to nemu top.`);
    process.stdin.setRawMode?.(true);
    process.stdin.once('data', pressed.resolve);
    process.stdin.resume();
    signal.addEventListener('abort', () => pressed.resolve(), { once: true });
    await pressed.promise;
    process.stdin.off('data', pressed.resolve);
    process.stdin.setRawMode?.(false);
    process.stdin.pause();
    process.stdout.write('\r\n');
  }

  /** Has a machine end, and tells what came of it. */
  async #end(kind: keyof typeof DEEDS, name: string): Promise<void> {
    const { asked, done } = DEEDS[kind];
    this.#deeds++;
    this.#say(asked(name));
    const problem = await runApart([kind, name]);
    this.#deeds--;
    // The numbers are those of the last look; those who are there are told apart at once.
    const up = new Set(listMachines().flatMap((known) => (known.status === 'ended' ? [] : [known.name])));
    this.#screen.take(this.#screen.loads.filter((load) => up.has(load.name)));
    if (problem === undefined) this.#say(`${name} ${done}.`, 'good');
    else this.#say(problem, 'bad');
  }

  #say(text: string, style?: Style): void {
    clearTimeout(this.#noticeTimer);
    this.#screen.say(text, style);
    this.#draw();
    if (this.#deeds > 0) return;
    this.#noticeTimer = setTimeout(() => {
      this.#screen.hush();
      this.#draw();
    }, NOTICE_MS);
  }
}
