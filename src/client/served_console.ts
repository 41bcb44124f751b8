import type { Duplex } from 'node:stream';
import { ConsoleInput, LEAVE_MS } from './console_input.ts';
import { NemuError } from './errors.ts';
import { encodeFrame, MAX_PAYLOAD } from './frames.ts';
import type { ConsoleStream } from './machine_client.ts';
import { FRAME_BYTES, FRAME_CREDIT, FRAME_LOST, MAX_UNREAD, WINDOW } from './protocol.ts';

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};

/** One console over the wire: output as far as the peer's window goes, input as far as the guest takes it. */
export class ServedConsole {
  readonly #stream: Duplex;
  readonly #channel: number;
  readonly #console: ConsoleStream;
  #window = WINDOW;
  /** What the guest has not taken is at most a window: the peer has no more to send. */
  readonly #input: ConsoleInput;
  #dropped = 0;
  #leaving = false;

  constructor(stream: Duplex, channel: number, console: ConsoleStream) {
    this.#stream = stream;
    this.#channel = channel;
    this.#console = console;
    console.onLost = (count) => this.#write(FRAME_LOST, u32(Math.min(count, 0xffff_ffff)));
    this.#input = new ConsoleInput(console, (taken) => this.#write(FRAME_CREDIT, u32(taken)));
    console.onData = this.#output;
  }

  #write(type: number, payload: Uint8Array): void {
    if (this.#stream.destroyed) return;
    this.#stream.write(encodeFrame(type, this.#channel, payload));
    // Credit for what it has not read is no credit.
    if (this.#stream.writableLength > MAX_UNREAD) this.#stream.destroy();
  }

  readonly #output = (bytes: Uint8Array): void => {
    for (let i = 0; i < bytes.length; i += MAX_PAYLOAD) this.#write(FRAME_BYTES, bytes.subarray(i, i + MAX_PAYLOAD));
    this.#window -= bytes.length;
    // Without a listener the bytes wait in the engine's ring, where the guest's side knows what to do.
    if (this.#window <= 0) this.#console.onData = undefined;
  };

  credit(bytes: number): void {
    if (this.#leaving) return;
    this.#window = Math.min(this.#window + bytes, WINDOW);
    if (this.#window > 0 && !this.#console.onData) this.#console.onData = this.#output;
  }

  input(bytes: Uint8Array): void {
    if (this.#stream.destroyed) return;
    if (this.#input.waiting + bytes.length > WINDOW) {
      this.drop();
      this.#stream.destroy(new NemuError('PROTOCOL', 'The peer sent more console input than its window allows.'));
      return;
    }
    this.#input.send(bytes);
  }

  /** The guest is not to have what waits: another drives, or the console has gone. */
  drop(): void {
    const dropped = this.#input.drop();
    this.#dropped += dropped;
    // There is room for what is typed when it drives again.
    if (dropped > 0) this.#write(FRAME_CREDIT, u32(dropped));
  }

  /** Takes no more output, and waits for the guest to take what waits. @returns bytes that it has not taken in time. */
  async leave(): Promise<number> {
    this.#leaving = true;
    this.#console.onData = undefined;
    await this.#input.drained(LEAVE_MS);
    this.drop();
    return this.#dropped;
  }
}
