/** A real terminal: a tmux server of its own, keys in, screen out. */
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';

export const hasTmux = spawnSync('tmux', ['-V']).status === 0;

export class Terminal {
  readonly #socket = `nemu-test-${process.pid}-${randomBytes(4).toString('hex')}`;

  /** Opens a terminal of this size with a POSIX shell in it. */
  constructor(columns: number, rows: number, environment: Record<string, string> = {}) {
    const variables = Object.entries({ PS1: 'host> ', ENV: '', ...environment }).flatMap(([name, value]) => [
      '-e',
      `${name}=${value}`,
    ]);
    this.#tmux('-f', '/dev/null', 'new-session', '-d', '-x', String(columns), '-y', String(rows), ...variables, 'sh');
    this.#tmux('set-option', '-s', 'set-clipboard', 'on');
  }

  #tmux(...args: string[]): string {
    return execFileSync('tmux', ['-L', this.#socket, ...args], { encoding: 'utf8' });
  }

  /** Types a text as it is. */
  type(text: string): void {
    this.#tmux('send-keys', '-l', text);
  }

  /** Presses keys by tmux' names: `Enter`, `C-c`, `BSpace`, `Left`. */
  press(...keys: string[]): void {
    this.#tmux('send-keys', ...keys);
  }

  /** Pastes, with the marks that the program in the terminal has asked for. */
  paste(text: string): void {
    this.#tmux('set-buffer', '-b', 'pasted', '--', text);
    this.#tmux('paste-buffer', '-p', '-d', '-b', 'pasted');
  }

  /** Presses the mouse's left button at a cell, counted from 1, and lets it go, for a program that has asked for it. */
  click(column: number, row: number): void {
    this.type(`\x1b[<0;${column};${row}M\x1b[<0;${column};${row}m`);
  }

  line(text: string): void {
    this.type(text);
    this.press('Enter');
  }

  resize(columns: number, rows: number): void {
    this.#tmux('resize-window', '-x', String(columns), '-y', String(rows));
  }

  /** What a program has put into the terminal's clipboard (OSC 52). */
  get clipboard(): string {
    return this.#tmux('show-buffer');
  }

  /** What is on the screen, and above it as far as tmux remembers. */
  get screen(): string {
    return this.#tmux('capture-pane', '-p', '-J', '-S', '-500');
  }

  /** What is on the screen, row by row. */
  get visible(): string {
    return this.#tmux('capture-pane', '-p');
  }

  /** What is on the screen, with the SGR sequences that make it look so (ECMA-48). */
  get colours(): string {
    return this.#tmux('capture-pane', '-p', '-e');
  }

  /** What tmux knows of the terminal, by the names in its manual: `mouse_all_flag`. */
  knows(...names: string[]): string[] {
    return this.#tmux('display-message', '-p', names.map((name) => `#{${name}}`).join(' '))
      .trim()
      .split(' ');
  }

  /** Waits until the screen shows `what`. @throws Error with the screen when it does not within the time. */
  async until(what: string | RegExp, timeoutMs = 60_000): Promise<string> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const { screen } = this;
      if (typeof what === 'string' ? screen.includes(what) : what.test(screen)) return screen;
      if (performance.now() > deadline) throw new Error(`The terminal did not show ${what}. It shows:\n${screen}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  close(): void {
    spawnSync('tmux', ['-L', this.#socket, 'kill-server']);
  }
}
