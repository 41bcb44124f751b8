/** What is typed at a console, in order: what there is no room for waits until there is. */
import type { ConsoleStream } from './machine_client.ts';
import type { SharedConsole } from './shared_console.ts';

/** Milliseconds that are left to the guest for what was typed, when whoever typed it leaves. */
export const LEAVE_MS = 5000;

export class ConsoleInput {
  readonly #console: ConsoleStream;
  readonly #onTaken: ((bytes: number) => void) | undefined;
  #pieces: Uint8Array[] = [];
  #waiting = 0;
  readonly #idle = new Set<() => void>();

  /**
   * Has the console's `onWritable` from now on: two who write to a console each by itself would mix up their bytes.
   * @param onTaken told how many bytes the console has just taken.
   */
  constructor(console: ConsoleStream, onTaken?: (bytes: number) => void) {
    this.#console = console;
    this.#onTaken = onTaken;
    console.onWritable = () => this.#flush();
  }

  /** Bytes that the console has not taken yet. */
  get waiting(): number {
    return this.#waiting;
  }

  send(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#pieces.push(bytes);
    this.#waiting += bytes.length;
    // What came before has found no room.
    if (this.#pieces.length === 1) this.#flush();
  }

  #flush(): void {
    let taken = 0;
    while (this.#pieces.length > 0) {
      const bytes = this.#pieces[0];
      const count = this.#console.write(bytes);
      taken += count;
      if (count < bytes.length) {
        this.#pieces[0] = bytes.subarray(count);
        break;
      }
      this.#pieces.shift();
    }
    this.#waiting -= taken;
    if (this.#waiting === 0) this.#rest();
    if (taken > 0) this.#onTaken?.(taken);
  }

  #rest(): void {
    for (const idle of this.#idle) idle();
    this.#idle.clear();
  }

  /** Forgets what waits. @returns how many bytes that were. */
  drop(): number {
    const dropped = this.#waiting;
    this.#pieces = [];
    this.#waiting = 0;
    this.#rest();
    return dropped;
  }

  /** Resolves when nothing waits, or after so many milliseconds. @returns how many bytes wait still. */
  async drained(ms: number): Promise<number> {
    if (this.#waiting === 0) return 0;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#idle.add(() => {
        clearTimeout(timer);
        resolve();
      });
    });
    return this.#waiting;
  }
}

/**
 * Leaves a console when the guest has taken what was typed, or not in time.
 * @returns what there is to say of it, as a line of its own; nothing where all was taken.
 */
export async function leaveConsole(console: SharedConsole, typed: ConsoleInput, name: string): Promise<string> {
  const dropped = (await typed.drained(LEAVE_MS)) + (await console.leave());
  if (dropped === 0) return '';
  return `[nemu] The last ${dropped} bytes typed at ${name} went nowhere: its guest did not take them in time.\n`;
}
