import { errnoName } from '../ffi/libc.ts';
import type { Bus } from './bus.ts';
import { BREAK_PORT } from './guest_debug.ts';
import { H, POST_DONE, POST_WAITING, S, type SharedBlock, slotData, slotWord } from './shared.ts';
import { KIND_ERROR, KIND_IO, KIND_MMIO } from './vcpu_thread.ts';

const PENDING_WORDS = 8;

/** What a post may need besides the buses. */
export interface PostHandlers {
  /** Runs before an access is served: takes what KVM gathered earlier, so that order is kept. */
  before(): void;
  /** The port of breakpoints was written to. @returns whether that was no access to a device. */
  broke(vcpu: number): boolean;
  /** An exit that is no bus access; its kvm_run page says more. */
  other(vcpu: number): void;
  failed(vcpu: number, errno: string): void;
}

/** The machine thread's end of the mailbox: serves exits that vCPU threads posted. */
export class PostServer {
  readonly #block: SharedBlock;
  readonly #pio: Bus;
  readonly #mmio: Bus;
  readonly #handlers: PostHandlers;
  readonly #data: Uint8Array[];
  /** First word of the slot that is being served, and whether its exit waits for more than that. */
  #serving: { readonly slot: number; held: boolean } | undefined;
  readonly #scratch = new Uint8Array(8);
  readonly #scratchWords = new Int32Array(this.#scratch.buffer);

  constructor(block: SharedBlock, pio: Bus, mmio: Bus, handlers: PostHandlers) {
    this.#block = block;
    this.#pio = pio;
    this.#mmio = mmio;
    this.#handlers = handlers;
    this.#data = Array.from({ length: block.vcpus }, (_, vcpu) => slotData(block, vcpu));
  }

  get pending(): boolean {
    for (let i = 0; i < PENDING_WORDS; i++) if (Atomics.load(this.#block.words, H.PENDING + i)) return true;
    return false;
  }

  /** Serves every posted exit. @returns whether there was one. */
  serve(): boolean {
    let any = false;
    for (let i = 0; i < PENDING_WORDS; i++) {
      let bits = Atomics.load(this.#block.words, H.PENDING + i);
      if (bits === 0) continue;
      bits = Atomics.exchange(this.#block.words, H.PENDING + i, 0);
      any = true;
      while (bits !== 0) {
        const bit = 31 - Math.clz32(bits & -bits);
        bits &= bits - 1;
        this.#serveOne(i * 32 + bit);
      }
    }
    return any;
  }

  /**
   * Has the exit that is being served complete only when the returned function is called: for work that has to be
   * done before the vCPU goes on, and that others need not wait for.
   */
  readonly hold = (): (() => void) => {
    const serving = this.#serving;
    if (!serving) return () => {};
    serving.held = true;
    let over = false;
    return () => {
      if (over) return;
      over = true;
      // While it is still being served it completes by itself.
      if (this.#serving === serving) serving.held = false;
      else this.#complete(serving.slot);
    };
  };

  #complete(slot: number): void {
    const { words } = this.#block;
    const post = slot + S.POST;
    if (Atomics.exchange(words, post, POST_DONE) === POST_WAITING) Atomics.notify(words, post);
  }

  #serveOne(vcpu: number): void {
    const { words } = this.#block;
    const slot = slotWord(vcpu);
    const serving = { slot, held: false };
    this.#serving = serving;
    this.#handlers.before();
    switch (Atomics.load(words, slot + S.KIND)) {
      case KIND_IO:
        this.#io(vcpu, slot);
        break;
      case KIND_MMIO:
        this.#memory(slot);
        break;
      case KIND_ERROR:
        this.#handlers.failed(vcpu, errnoName(Atomics.load(words, slot + S.VALUE_LOW)));
        break;
      default:
        this.#handlers.other(vcpu);
    }
    this.#serving = undefined;
    if (!serving.held) this.#complete(slot);
  }

  #io(vcpu: number, slot: number): void {
    const { words } = this.#block;
    const size = Atomics.load(words, slot + S.SIZE);
    const count = Atomics.load(words, slot + S.COUNT);
    const port = Atomics.load(words, slot + S.ADDRESS_LOW);
    const isWrite = Atomics.load(words, slot + S.IS_WRITE) === 1;
    if (port === BREAK_PORT && isWrite && this.#handlers.broke(vcpu)) return;
    if (count > 1) {
      const bytes = this.#data[vcpu].subarray(0, size * count);
      if (isWrite) this.#pio.writeRepeated(port, size, bytes);
      else this.#pio.readRepeated(port, size, bytes);
    } else if (isWrite) {
      this.#pio.write(port, size, Atomics.load(words, slot + S.VALUE_LOW) >>> 0);
    } else {
      Atomics.store(words, slot + S.VALUE_LOW, this.#pio.read(port, size) | 0);
    }
  }

  #memory(slot: number): void {
    const { words } = this.#block;
    const size = Atomics.load(words, slot + S.SIZE);
    const low = Atomics.load(words, slot + S.ADDRESS_LOW) >>> 0;
    const address = low + Atomics.load(words, slot + S.ADDRESS_HIGH) * 0x1_0000_0000;
    const isWrite = Atomics.load(words, slot + S.IS_WRITE) === 1;
    if (size === 1 || size === 2 || size === 4) {
      if (isWrite) this.#mmio.write(address, size, maskTo(size, Atomics.load(words, slot + S.VALUE_LOW)));
      else Atomics.store(words, slot + S.VALUE_LOW, this.#mmio.read(address, size) | 0);
      return;
    }
    const bytes = this.#scratch.subarray(0, Math.min(size, 8));
    if (isWrite) {
      this.#scratchWords[0] = Atomics.load(words, slot + S.VALUE_LOW);
      this.#scratchWords[1] = Atomics.load(words, slot + S.VALUE_HIGH);
      this.#mmio.writeBytes(address, bytes);
    } else {
      this.#mmio.readBytes(address, bytes);
      Atomics.store(words, slot + S.VALUE_LOW, this.#scratchWords[0]);
      Atomics.store(words, slot + S.VALUE_HIGH, this.#scratchWords[1]);
    }
  }
}

const maskTo = (size: number, value: number) => (size === 1 ? value & 0xff : size === 2 ? value & 0xffff : value >>> 0);
