/** The whole terminal for one pane: its screen and its size, keys as they are, and the terminal as it was afterwards. */
import type { WriteStream } from 'node:tty';
import { PASTE_BEGINS, PASTE_ENDS } from '../console/terminal_lexer.ts';
import { GuestModes } from '../console/terminal_modes.ts';
import type { RawKeys, TerminalInput } from './input.ts';
import type { TerminalPane } from './terminal_pane.ts';
import { ZoomedOutput } from './zoomed_output.ts';

const NOWHERE: RawKeys = { type: () => {}, paste: () => {} };

/** The guest has set the terminal's modes by itself: keys and marks are as it wants them. */
const asItIs = ({ send }: TerminalPane): RawKeys => ({
  type: send,
  paste: (bytes, first, last) =>
    send(Buffer.concat([Buffer.from(first ? PASTE_BEGINS : ''), bytes, Buffer.from(last ? PASTE_ENDS : '')])),
});

export interface ZoomOptions {
  /** What is typed goes nowhere. */
  readonly mute: boolean;
  /** The terminal was too slow for so many bytes. */
  readonly skipped: (count: number) => void;
}

export class Zoom {
  readonly #terminal: WriteStream;
  readonly #input: TerminalInput;
  readonly #options: ZoomOptions;
  readonly #output: ZoomedOutput;
  #pane: TerminalPane | undefined;
  /** The pane's bytes go to the terminal as they come: what was before them is on its screen. */
  #live = false;
  #modes = new GuestModes();
  #hinted = false;
  #left: (() => void) | undefined;

  constructor(terminal: WriteStream, input: TerminalInput, options: ZoomOptions) {
    this.#terminal = terminal;
    this.#input = input;
    this.#options = options;
    this.#output = new ZoomedOutput(terminal, (count) => {
      if (this.#pane) this.#draw(this.#pane);
      options.skipped(count);
    });
  }

  /** The one that has the terminal. */
  get pane(): TerminalPane | undefined {
    return this.#pane;
  }

  /** A pane has got these bytes, and draws them for itself. */
  saw(pane: TerminalPane, bytes: Uint8Array): void {
    if (this.#live && this.#pane === pane) this.#show(bytes);
  }

  /**
   * Gives the terminal to a pane until Ctrl-].
   * @param free when the terminal is; the pane has the keyboard before: what is typed behind the key that zooms is for it.
   */
  async show(pane: TerminalPane, free: Promise<unknown> = Promise.resolve()): Promise<void> {
    const left = Promise.withResolvers<void>();
    let over = false;
    const { raw, onLeave } = this.#input;
    this.#input.raw = this.#options.mute ? NOWHERE : asItIs(pane);
    // At once: what follows Ctrl-] in the same read is not the guest's any more.
    const leave = () => {
      // Whoever has the keyboard by now keeps it.
      if (over) return;
      over = true;
      this.#input.everything = false;
      this.#input.raw = raw;
      this.#input.onLeave = onLeave;
      left.resolve();
    };
    this.#input.onLeave = leave;
    this.#left = leave;
    try {
      await free;
      if (!over) await this.#showing(pane, left.promise);
    } finally {
      leave();
    }
  }

  async #showing(pane: TerminalPane, left: Promise<void>): Promise<void> {
    this.#pane = pane;
    const resized = () => pane.resize(this.#terminal.columns, this.#terminal.rows);
    this.#terminal.on('resize', resized);
    resized();
    this.#modes = new GuestModes();
    this.#draw(pane, true);
    this.#input.everything = true;
    try {
      await left;
    } finally {
      this.#terminal.off('resize', resized);
      this.#live = false;
      this.#pane = undefined;
      pane.answers = true;
      this.#terminal.write(this.#modes.undo());
    }
  }

  /** What makes the terminal as it was, while a pane has it. */
  get undo(): string {
    return this.#pane ? this.#modes.undo() : '';
  }

  /** Takes the terminal back, as Ctrl-] does. */
  end(): void {
    this.#left?.();
  }

  #draw(pane: TerminalPane, hint = false): void {
    this.#live = false;
    this.#hinted = false;
    // What the terminal does not get as it is, it does not answer.
    pane.answers = true;
    pane.copy((screen, rest) => {
      if (this.#pane !== pane) return;
      this.#modes.saw(Buffer.from(screen));
      this.#terminal.write(screen);
      this.#live = true;
      if (hint && rest.length === 0) this.#hint(pane);
      pane.answers = this.#hinted;
      for (const bytes of rest) this.#show(bytes);
    });
  }

  #show(bytes: Uint8Array): void {
    if (this.#hinted && this.#pane) {
      // The pane has these bytes already. The hint has changed what the terminal remembers, not only its last row.
      this.#draw(this.#pane);
      return;
    }
    this.#modes.saw(bytes);
    this.#output.write(bytes);
  }

  /** Says how to come back, where the guest has nothing yet, and until it prints more. */
  #hint({ name, terminal, watching }: TerminalPane): void {
    const more = this.#options.mute ? '; read-only' : watching ? '; somebody else drives it' : '';
    const buffer = terminal.buffer.active;
    const last = buffer.getLine(buffer.baseY + terminal.rows - 1);
    if (buffer.cursorY === terminal.rows - 1 || last?.translateToString(true) !== '') return;
    const text = `\x1b[0;2m[nemu] ${name}; Ctrl-] comes back${more}\x1b[0m\x1b[K`;
    this.#terminal.write(`\x1b7\x0f\x1b(B\x1b[?6l\x1b[${this.#terminal.rows};1H${text}\x1b8`);
    this.#hinted = true;
  }
}
