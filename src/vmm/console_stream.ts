import type { ConsoleStream } from '../client/machine_client.ts';
import { ByteRing } from './byte_ring.ts';
import type { SerialRings } from './serial_channel.ts';

const OUTPUT_BYTES = 1 << 20;
const INPUT_BYTES = 1 << 16;

/** The main thread's end of a serial port's rings. */
export class RingConsole implements ConsoleStream {
  readonly name: string;
  readonly rings: SerialRings;
  onLost: ((count: number) => void) | undefined;
  onWritable: (() => void) | undefined;
  #onData: ((bytes: Uint8Array) => void) | undefined;
  #output = new ByteRing(OUTPUT_BYTES);
  #input = new ByteRing(INPUT_BYTES);
  readonly #wakeMachine: () => void;
  #wanted = false;

  constructor(name: string, wakeMachine: () => void) {
    this.name = name;
    this.#wakeMachine = wakeMachine;
    this.rings = { output: this.#output.buffer, input: this.#input.buffer };
  }

  get onData(): ((bytes: Uint8Array) => void) | undefined {
    return this.#onData;
  }

  set onData(listener: ((bytes: Uint8Array) => void) | undefined) {
    this.#onData = listener;
    if (listener) queueMicrotask(() => this.drain());
  }

  write(bytes: Uint8Array): number {
    let taken = this.#input.write(bytes);
    while (taken < bytes.length && !this.#input.wantSpace()) taken += this.#input.write(bytes.subarray(taken));
    if (taken < bytes.length) this.#wanted = true;
    if (taken > 0) this.#wakeMachine();
    return taken;
  }

  /** The machine thread rang: bytes are there, or room is. */
  rung(): void {
    if (this.#wanted && this.#input.space > 0) {
      this.#wanted = false;
      this.onWritable?.();
    }
    this.drain();
  }

  drain(): void {
    if (!this.#onData) return;
    do {
      for (let bytes = this.#output.read(); bytes.length > 0; bytes = this.#output.read()) {
        this.#onData?.(bytes);
      }
      if (this.#output.takeSpaceBell()) this.#wakeMachine();
    } while (!this.#output.wantData());
  }
}
