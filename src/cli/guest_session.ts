import type { ConsoleStream, MachineClient } from '../client/machine_client.ts';

/** A phase of the guest's own start: its uptime in seconds. */
export interface GuestPhase {
  readonly name: string;
  readonly uptime: number;
}

/**
 * The control channel of a guest that runs our init: lines on a serial port (src/lab/assets/init.sh has the
 * contract). What the guest sends is untrusted: lines that do not parse are dropped, long ones are cut.
 */
export class GuestSession {
  readonly phases: GuestPhase[] = [];
  /** Exit status of the command or shell, once reported. */
  status: number | undefined;
  onPhase: ((phase: GuestPhase) => void) | undefined;
  onStatus: ((status: number) => void) | undefined;
  readonly #console: ConsoleStream;
  #line = '';

  constructor(console: ConsoleStream) {
    this.#console = console;
    console.onData = (bytes) => this.#receive(bytes);
  }

  /** Opens the control channel of a machine that has one. */
  static of(machine: MachineClient): GuestSession | undefined {
    return machine.consoles.includes('com4') ? new GuestSession(machine.console('com4')) : undefined;
  }

  #receive(bytes: Uint8Array): void {
    this.#line += Buffer.from(bytes).toString('latin1');
    for (let end = this.#line.indexOf('\n'); end >= 0; end = this.#line.indexOf('\n')) {
      this.#take(this.#line.slice(0, end).trim());
      this.#line = this.#line.slice(end + 1);
    }
    if (this.#line.length > 1000) this.#line = '';
  }

  #take(line: string): void {
    const phase = /^phase (\w{1,20}) (\d{1,10}\.\d{1,6})$/.exec(line);
    if (phase) {
      const found = { name: phase[1], uptime: Number(phase[2]) };
      this.phases.push(found);
      this.onPhase?.(found);
      return;
    }
    const exit = /^exit (\d{1,3})$/.exec(line);
    if (exit) {
      this.status = Number(exit[1]);
      this.onStatus?.(this.status);
    }
  }

  #send(line: string): void {
    this.#console.write(Buffer.from(`${line}\n`));
  }

  resize(rows: number, columns: number): void {
    if (rows > 0 && columns > 0) this.#send(`size ${rows} ${columns}`);
  }

  /** Signals the command's process group. */
  signal(name: 'INT' | 'TERM' | 'HUP' | 'QUIT'): void {
    this.#send(`signal ${name}`);
  }
}
