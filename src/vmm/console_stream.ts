import type { ConsoleStream } from '../client/machine_client.ts';
import { ByteRing } from './byte_ring.ts';
import type { SerialRings } from './serial_channel.ts';

const OUTPUT_BYTES = 1 << 20;
const INPUT_BYTES = 1 << 16;
/** While output comes this close upon what came before, milliseconds, it is taken in turns of GATHER_MS. */
const BURST_MS = 20;
/**
 * A UART's guest writes some bytes at a time; with a message between the threads for each, `npm run bench -- serial`
 * showed a half of the rate for one long piece.
 * After a pause the first bytes are taken at once.
 */
const GATHER_MS = 4;

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
  /** When bytes were taken last. */
  #took = Number.NEGATIVE_INFINITY;
  #gathering = false;

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
    this.#take();
  }

  readonly #take = (): void => {
    this.#gathering = false;
    const now = performance.now();
    const bursting = now - this.#took < BURST_MS;
    if (this.#read()) this.#took = now;
    if (!this.#onData || (!bursting && this.#output.wantData())) return;
    this.#gathering = true;
    setTimeout(this.#take, GATHER_MS).unref();
  };

  /** Takes all that there is, and has the machine thread ring for what comes later. */
  drain(): void {
    do this.#read();
    while (this.#onData && !this.#gathering && !this.#output.wantData());
  }

  /** @returns whether there was something to take. */
  #read(): boolean {
    let some = false;
    while (this.#onData && this.#output.length > 0) {
      some = true;
      this.#onData(this.#output.read());
    }
    if (some && this.#output.takeSpaceBell()) this.#wakeMachine();
    return some;
  }
}
