/** A console's pseudo-terminal: whatever program opens it looks at the console, and drives it once it writes. */
import type { SharedConsole } from '../client/shared_console.ts';
import type { ConsoleHub } from './hub.ts';

/** The master's end of a pseudo-terminal. */
export interface PtyEnd {
  /** What a program opens. */
  readonly path: string;
  /** Some program has it open. */
  readonly connected: boolean;
  /** What the program writes, from now on until it has closed the terminal. @returns what ends that. */
  listen(onData: (bytes: Uint8Array) => void, onClose: () => void): PtyReader;
  /** @returns how many of the bytes there was room for. */
  write(bytes: Uint8Array): number;
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
  /** Output that the program has not taken, and input that the guest has not. */
  output: Uint8Array;
  input: Uint8Array;
  timer: NodeJS.Timeout | undefined;
}

const NOTHING = new Uint8Array(0);

export class PtyBridge {
  readonly #hub: ConsoleHub;
  readonly #pty: PtyEnd;
  readonly #look: NodeJS.Timeout;
  #session: Session | undefined;

  constructor(hub: ConsoleHub, pty: PtyEnd) {
    this.#hub = hub;
    this.#pty = pty;
    hub.pty = pty.path;
    this.#look = setInterval(() => this.#come(), LOOK_MS);
    this.#look.unref();
  }

  #come(): void {
    if (this.#session || !this.#pty.connected) return;
    const viewer = this.#hub.open({ role: 'driver', label: `a program at ${this.#pty.path}`, replay: true });
    const reader = this.#pty.listen(
      (bytes) => this.#typed(bytes),
      () => this.#gone(),
    );
    const session: Session = { viewer, reader, output: NOTHING, input: NOTHING, timer: undefined };
    this.#session = session;
    viewer.onScreen = (screen) => this.#print(session, screen);
    viewer.onLost = (count) =>
      this.#print(session, Buffer.from(`\r\n[nemu] ${count} bytes were not taken in time.\r\n`));
    viewer.onWritable = () => {
      if (session.input.length > 0) this.#typed(NOTHING);
    };
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

  #typed(bytes: Uint8Array): void {
    const session = this.#session;
    if (!session) return;
    // To write is to ask for it: a program has no other way.
    if (session.viewer.role !== 'driver' && bytes.length > 0) session.viewer.takeOver();
    const all = session.input.length > 0 ? Buffer.concat([session.input, bytes]) : bytes;
    session.input = all.subarray(session.viewer.write(all));
    if (session.input.length > 0) session.reader.pause();
    else session.reader.resume();
  }

  #gone(): void {
    const session = this.#session;
    this.#session = undefined;
    clearTimeout(session?.timer);
    session?.viewer.close();
  }

  close(): void {
    clearInterval(this.#look);
    const reader = this.#session?.reader;
    this.#gone();
    reader?.close();
    this.#pty.close();
    this.#hub.pty = undefined;
  }
}
