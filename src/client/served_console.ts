import type { Duplex } from 'node:stream';
import { NemuError } from './errors.ts';
import { encodeFrame, MAX_PAYLOAD } from './frames.ts';
import type { ConsoleStream } from './machine_client.ts';
import { FRAME_BYTES, FRAME_CREDIT, FRAME_LOST, WINDOW } from './protocol.ts';

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
  /** Input that the guest has not taken yet: at most a window, for the peer has no more to send. */
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;

  constructor(stream: Duplex, channel: number, console: ConsoleStream) {
    this.#stream = stream;
    this.#channel = channel;
    this.#console = console;
    console.onLost = (count) => this.#write(FRAME_LOST, u32(Math.min(count, 0xffff_ffff)));
    console.onWritable = () => this.#flush();
    console.onData = this.#output;
  }

  #write(type: number, payload: Uint8Array): void {
    if (!this.#stream.destroyed) this.#stream.write(encodeFrame(type, this.#channel, payload));
  }

  readonly #output = (bytes: Uint8Array): void => {
    for (let i = 0; i < bytes.length; i += MAX_PAYLOAD) this.#write(FRAME_BYTES, bytes.subarray(i, i + MAX_PAYLOAD));
    this.#window -= bytes.length;
    // Without a listener the bytes wait in the engine's ring, where the guest's side knows what to do.
    if (this.#window <= 0) this.#console.onData = undefined;
  };

  credit(bytes: number): void {
    this.#window += Math.min(bytes, WINDOW);
    if (this.#window > 0 && !this.#console.onData) this.#console.onData = this.#output;
  }

  input(bytes: Uint8Array): void {
    if (this.#waitingBytes + bytes.length > WINDOW) {
      this.#stream.destroy(new NemuError('PROTOCOL', 'The peer sent more console input than its window allows.'));
      return;
    }
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    this.#flush();
  }

  #flush(): void {
    let taken = 0;
    while (this.#waiting.length > 0) {
      const bytes = this.#waiting[0];
      const count = this.#console.write(bytes);
      taken += count;
      if (count === bytes.length) this.#waiting.shift();
      else {
        this.#waiting[0] = bytes.subarray(count);
        break;
      }
    }
    this.#waitingBytes -= taken;
    if (taken > 0) this.#write(FRAME_CREDIT, u32(taken));
  }
}
