/** A console's pseudo-terminal: whatever program opens it looks at the console, and drives it once it writes. */
import { ConsoleInput } from '../client/console_input.ts';
import type { SharedConsole } from '../client/shared_console.ts';
import type { ConsoleHub } from './hub.ts';

/** The master's end of a pseudo-terminal. */
export interface PtyEnd {
  /** What a program opens. */
  readonly path: string;
  /** Some program has it open. */
  readonly connected: boolean;
  /** A program has written what nobody has read, and may be gone. */
  readonly written: boolean;
  /** What the program writes, from now on until it has closed the terminal. @returns what ends that. */
  listen(onData: (bytes: Uint8Array) => void, onClose: () => void): PtyReader;
  /** @returns how many of the bytes there was room for. */
  write(bytes: Uint8Array): number;
  /** Drops what no program has read. */
  forget(): void;
  close(): void;
}

export interface PtyReader {
  pause(): void;
  resume(): void;
  close(): void;
}

/** How often it is looked whether somebody has come: the kernel tells of a program that goes only. */
const LOOK_MS = 250;
/** How long a program that does not read is left alone. */
const FULL_MS = 20;

interface Session {
  readonly viewer: SharedConsole;
  readonly reader: PtyReader;
  readonly input: ConsoleInput;
  /** Output that the program has not taken. */
  output: Uint8Array;
  timer: NodeJS.Timeout | undefined;
}

const NOTHING = new Uint8Array(0);

export class PtyBridge {
  readonly #hub: ConsoleHub;
  readonly #pty: PtyEnd;
  readonly #look: NodeJS.Timeout;
  #session: Session | undefined;
  /** Sessions whose program has gone before the guest has taken all that it wrote. */
  readonly #leaving = new Set<Session>();

  constructor(hub: ConsoleHub, pty: PtyEnd) {
    this.#hub = hub;
    this.#pty = pty;
    hub.pty = pty.path;
    this.#look = setInterval(() => this.#lookAfter(), LOOK_MS);
    this.#look.unref();
  }

  #lookAfter(): void {
    const { connected, written } = this.#pty;
    if (!this.#session) {
      // One that has written and gone meanwhile is a session too: its bytes would be the next one's.
      if (connected || written) this.#come();
      return;
    }
    // Where nobody writes any more there is little left, and its end is to be seen before the next one comes.
    if (!connected) this.#session.reader.resume();
  }

  #come(): void {
    const viewer = this.#hub.open({ role: 'driver', label: `a program at ${this.#pty.path}`, replay: true });
    const session: Session = {
      viewer,
      reader: this.#pty.listen(
        (bytes) => this.#typed(session, bytes),
        () => this.#gone(session),
      ),
      input: new ConsoleInput(viewer, () => this.#taken(session)),
      output: NOTHING,
      timer: undefined,
    };
    this.#session = session;
    viewer.onScreen = (screen) => this.#print(session, screen);
    viewer.onLost = (count) =>
      this.#print(session, Buffer.from(`\r\n[nemu] ${count} bytes were not taken in time.\r\n`));
    viewer.onData = (bytes) => this.#print(session, bytes);
  }

  #print(session: Session, bytes: Uint8Array): void {
    session.output = session.output.length > 0 ? Buffer.concat([session.output, bytes]) : bytes;
    this.#flush(session);
  }

  /** The viewer holds what comes while the program takes nothing: the hub forgets what is too old, and says so. */
  #flush(session: Session): void {
    if (this.#session !== session) return;
    session.timer = undefined;
    session.output = session.output.subarray(this.#pty.write(session.output));
    if (session.output.length > 0) {
      session.viewer.onData = undefined;
      session.timer = setTimeout(() => this.#flush(session), FULL_MS);
    } else session.viewer.onData ??= (bytes) => this.#print(session, bytes);
  }

  #typed(session: Session, bytes: Uint8Array): void {
    // To write is to ask for it: a program has no other way.
    if (session.viewer.role !== 'driver') session.viewer.takeOver();
    session.input.send(bytes);
    if (session.input.waiting > 0 && this.#pty.connected) session.reader.pause();
  }

  #taken(session: Session): void {
    if (session.input.waiting > 0) return;
    if (this.#session === session) session.reader.resume();
    if (this.#leaving.delete(session)) session.viewer.close();
  }

  /** The program has closed the terminal. What it wrote goes to the guest yet, unless somebody takes the console over. */
  #gone(session: Session): void {
    if (this.#session !== session) return;
    this.#session = undefined;
    clearTimeout(session.timer);
    session.viewer.onData = undefined;
    try {
      this.#pty.forget();
    } catch {
      // Without a descriptor to spare the next program reads old output: better than no engine.
    }
    if (session.input.waiting === 0) session.viewer.close();
    else this.#leaving.add(session);
  }

  close(): void {
    clearInterval(this.#look);
    const session = this.#session;
    this.#session = undefined;
    clearTimeout(session?.timer);
    session?.reader.close();
    for (const { viewer } of [...this.#leaving, ...(session ? [session] : [])]) viewer.close();
    this.#leaving.clear();
    this.#pty.close();
    if (this.#hub.pty === this.#pty.path) this.#hub.pty = undefined;
  }
}
