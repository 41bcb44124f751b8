import type { ConsoleStream } from './machine_client.ts';
import { FRAME_BYTES, FRAME_CREDIT, FRAME_LOST, FRAME_SCREEN, WINDOW } from './protocol.ts';

/** The other end of a ServedConsole: what came waits for a listener, what is written goes as far as the window. */
export class RemoteConsole implements ConsoleStream {
  readonly name: string;
  onLost: ((count: number) => void) | undefined;
  onWritable: (() => void) | undefined;
  readonly #send: (type: number, payload: Uint8Array) => void;
  onScreen: ((screen: Uint8Array) => void) | undefined;
  #onData: ((bytes: Uint8Array) => void) | undefined;
  /** At most a window: the engine sends no more before it gets credit. */
  #waiting: { readonly bytes: Uint8Array; readonly screen: boolean }[] = [];
  #window: number;
  #short = false;
  #untaken = 0;

  /** @param window bytes that may be written before the first credit. */
  constructor(name: string, send: (type: number, payload: Uint8Array) => void, window = WINDOW) {
    this.#window = window;
    this.name = name;
    this.#send = send;
  }

  get onData(): ((bytes: Uint8Array) => void) | undefined {
    return this.#onData;
  }

  set onData(listener: ((bytes: Uint8Array) => void) | undefined) {
    this.#onData = listener;
    if (listener) queueMicrotask(() => this.#deliver());
  }

  frame(type: number, payload: Uint8Array): void {
    if (type === FRAME_BYTES || type === FRAME_SCREEN) {
      this.#waiting.push({ bytes: payload, screen: type === FRAME_SCREEN });
      this.#deliver();
    } else if (type === FRAME_CREDIT) {
      const bytes = Buffer.from(payload).readUInt32LE(0);
      this.#untaken -= bytes;
      this.credit(bytes);
    } else if (type === FRAME_LOST) this.onLost?.(Buffer.from(payload).readUInt32LE(0));
  }

  #deliver(): void {
    let taken = 0;
    while (this.#onData && this.#waiting.length > 0) {
      const { bytes, screen } = this.#waiting.shift() as { bytes: Uint8Array; screen: boolean };
      // A screen is outside the window. Who asks for none can draw it all the same.
      if (screen) (this.onScreen ?? this.#onData)(bytes);
      else {
        taken += bytes.length;
        this.#onData(bytes);
      }
    }
    if (this.#waiting.length === 0) this.delivered();
    if (taken === 0) return;
    const credit = Buffer.alloc(4);
    credit.writeUInt32LE(taken);
    this.#send(FRAME_CREDIT, credit);
  }

  /** All that came has been given to the listener. */
  protected delivered(): void {}

  protected get isDelivered(): boolean {
    return this.#waiting.length === 0;
  }

  /** Bytes that were sent, and that the guest may not have taken yet. */
  get untaken(): number {
    return this.#untaken;
  }

  write(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.#window);
    if (taken > 0) this.#send(FRAME_BYTES, bytes.subarray(0, taken));
    this.#window -= taken;
    this.#untaken += taken;
    this.#short = taken < bytes.length;
    return taken;
  }

  credit(bytes: number): void {
    this.#window += bytes;
    if (!this.#short) return;
    this.#short = false;
    this.onWritable?.();
  }
}
