/** Stand-ins for what a board gives to a device: memory, a clock, interrupt lines, a byte stream. */
import type { ByteChannel, Clock, GuestMemory, IrqLine, Timer } from '../../src/devices/device.ts';

/** RAM from address 0 on. */
export class FakeMemory implements GuestMemory {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.view = new DataView(this.bytes.buffer);
  }

  slice(gpa: number, length: number): Uint8Array | undefined {
    if (!(gpa >= 0 && length >= 0 && gpa + length <= this.bytes.length)) return undefined;
    return this.bytes.subarray(gpa, gpa + length);
  }

  read(gpa: number, into: Uint8Array): boolean {
    const view = this.slice(gpa, into.length);
    if (view) into.set(view);
    return view !== undefined;
  }

  write(gpa: number, from: Uint8Array): boolean {
    const view = this.slice(gpa, from.length);
    view?.set(from);
    return view !== undefined;
  }
}

/** A clock that stands still until a test moves it; timers fire when it passes them. */
export class FakeClock implements Clock {
  #now = 0n;
  readonly #timers = new Set<{ at: bigint | undefined; callback: () => void }>();

  now(): bigint {
    return this.#now;
  }

  wallClockMs(): number {
    return Date.UTC(2026, 0, 31, 23, 59, 58) + Number(this.#now / 1_000_000n);
  }

  timer(callback: () => void): Timer {
    const timer: { at: bigint | undefined; callback: () => void } = { at: undefined, callback };
    this.#timers.add(timer);
    return {
      armAt: (ns) => {
        timer.at = ns;
      },
      cancel: () => {
        timer.at = undefined;
      },
    };
  }

  /** Puts it back, as a restored snapshot does. */
  set(ns: bigint): void {
    this.#now = ns;
  }

  advance(ns: bigint): void {
    this.#now += ns;
    for (const timer of this.#timers) {
      if (timer.at === undefined || timer.at > this.#now) continue;
      timer.at = undefined;
      timer.callback();
    }
  }
}

export class FakeLine implements IrqLine {
  level = false;
  edges = 0;

  set(level: boolean): void {
    if (level && !this.level) this.edges++;
    this.level = level;
  }
}

/** Takes everything, and has what a test puts in. */
export class FakeChannel implements ByteChannel {
  readonly written: number[] = [];
  readonly input: number[] = [];
  onReadable?: () => void;
  onWritable?: () => void;

  get readable(): boolean {
    return this.input.length > 0;
  }

  read(): number {
    return this.input.shift() ?? -1;
  }

  write(bytes: Uint8Array): number {
    this.written.push(...bytes);
    return bytes.length;
  }
}
