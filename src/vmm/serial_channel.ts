import type { ByteChannel } from '../devices/device.ts';
import { ByteRing } from './byte_ring.ts';

/** What happens when nobody takes a port's output: the guest goes on and bytes are counted as lost, or it waits. */
export type SerialFlow = 'drop' | 'wait';

/** The two rings of one serial port, made by the main thread. */
export interface SerialRings {
  /** Machine to main. */
  readonly output: SharedArrayBuffer;
  /** Main to machine. */
  readonly input: SharedArrayBuffer;
}

/** A serial port's end of its rings, in the machine thread. */
export class SerialChannel implements ByteChannel {
  onReadable?: () => void;
  onWritable?: () => void;
  /** Bytes that found no room (`flow: drop`). */
  dropped = 0;
  #output: ByteRing | undefined;
  #input: ByteRing | undefined;
  readonly #flow: SerialFlow;
  readonly #ring: () => void;
  readonly #tap: (bytes: Uint8Array) => void;

  /**
   * @param ring tells the main thread that it has bytes to take, or room to give.
   * @param tap sees every byte that the guest wrote, also those that are dropped.
   */
  constructor(flow: SerialFlow, ring: () => void, tap: (bytes: Uint8Array) => void) {
    this.#flow = flow;
    this.#ring = ring;
    this.#tap = tap;
  }

  /** A device that is plugged has its place before the main thread makes its rings, and no guest until then. */
  connect({ output, input }: SerialRings): void {
    this.#output = new ByteRing(output);
    this.#input = new ByteRing(input);
  }

  write(bytes: Uint8Array): number {
    const output = this.#output;
    if (!output) return 0;
    let taken = output.write(bytes);
    // Room may have come between the short write and the wish for it.
    while (taken < bytes.length && this.#flow === 'wait' && !output.wantSpace()) {
      taken += output.write(bytes.subarray(taken));
    }
    if (output.takeDataBell()) this.#ring();
    if (this.#flow === 'drop') {
      this.dropped += bytes.length - taken;
      taken = bytes.length;
    }
    this.#tap(taken === bytes.length ? bytes : bytes.subarray(0, taken));
    return taken;
  }

  read(): number {
    const byte = this.#input?.readByte() ?? -1;
    if (byte >= 0 && this.#input?.takeSpaceBell()) this.#ring();
    return byte;
  }

  get readable(): boolean {
    return (this.#input?.length ?? 0) > 0;
  }

  /** Called after each wake-up by the main thread: input may have come, or room. */
  poll(): void {
    if (this.readable) this.onReadable?.();
    if ((this.#output?.space ?? 0) > 0) this.onWritable?.();
  }
}
