/** Bytes of a PCI Express function's configuration space; the first 256 are the conventional ones. */
export const CONFIG_SPACE_SIZE = 4096;
const WORDS = CONFIG_SPACE_SIZE / 4;
const CAPABILITIES_START = 0x40;
const EXTENDED_START = 0x100;

/** Offsets of the header (PCI Local Bus Specification 3.0, section 6.1). */
export const PCI = {
  VENDOR_ID: 0x00,
  DEVICE_ID: 0x02,
  COMMAND: 0x04,
  STATUS: 0x06,
  REVISION_ID: 0x08,
  CLASS_PROG: 0x09,
  CLASS_DEVICE: 0x0a,
  CACHE_LINE_SIZE: 0x0c,
  LATENCY_TIMER: 0x0d,
  HEADER_TYPE: 0x0e,
  BASE_ADDRESS_0: 0x10,
  SUBSYSTEM_VENDOR_ID: 0x2c,
  SUBSYSTEM_ID: 0x2e,
  ROM_ADDRESS: 0x30,
  CAPABILITY_LIST: 0x34,
  INTERRUPT_LINE: 0x3c,
  INTERRUPT_PIN: 0x3d,
} as const;

export const PCI_COMMAND_IO = 0x1;
export const PCI_COMMAND_MEMORY = 0x2;
export const PCI_COMMAND_MASTER = 0x4;
export const PCI_COMMAND_SERR = 0x100;
export const PCI_COMMAND_INTX_DISABLE = 0x400;
export const PCI_STATUS_INTERRUPT = 0x08;
export const PCI_STATUS_CAP_LIST = 0x10;
export const PCI_HEADER_TYPE_MULTIFUNCTION = 0x80;

interface Hook {
  readonly start: number;
  readonly end: number;
  readonly changed: () => void;
}

/**
 * The configuration space of one function: bytes, which of their bits a guest may write or clear, and who wants
 * to know. The bytes stand in shared memory and have one writer, the thread that owns the device, so that vCPU
 * threads can answer reads themselves; no configuration register has a side effect when read.
 */
export class ConfigSpace {
  readonly #words: Int32Array;
  readonly #writable = new Int32Array(WORDS);
  readonly #clearable = new Int32Array(WORDS);
  #initial: Int32Array | undefined;
  readonly #hooks: Hook[] = [];
  #lastCapability = PCI.CAPABILITY_LIST as number;
  #nextCapability = CAPABILITIES_START;
  #lastExtended = 0;
  #nextExtended = EXTENDED_START;

  /** @param words 1024 words, shared when other threads read them. */
  constructor(words: Int32Array = new Int32Array(WORDS)) {
    if (words.length !== WORDS) throw new Error(`A configuration space has ${WORDS} words, not ${words.length}.`);
    this.#words = words;
  }

  /** @param size 1, 2 or 4; the access must not leave its double word. */
  read(offset: number, size: number): number {
    const value = Atomics.load(this.#words, offset >> 2) >>> (8 * (offset & 3));
    return size === 4 ? value >>> 0 : value & (size === 1 ? 0xff : 0xffff);
  }

  /** Sets a field from the device's side, whatever the guest may write there. */
  set(offset: number, size: number, value: number): void {
    const word = offset >> 2;
    const mask = fieldMask(offset, size);
    Atomics.store(this.#words, word, (this.#words[word] & ~mask) | ((value << (8 * (offset & 3))) & mask));
  }

  /** A guest's write: read-only bits stay, write-1-to-clear bits clear, and whoever watches the field is told. */
  write(offset: number, size: number, value: number): void {
    const word = offset >> 2;
    const mask = fieldMask(offset, size);
    const shifted = (value << (8 * (offset & 3))) & mask;
    const old = this.#words[word];
    const writable = this.#writable[word] & mask;
    const next = ((old & ~writable) | (shifted & writable)) & ~(shifted & this.#clearable[word]);
    Atomics.store(this.#words, word, next);
    for (const hook of this.#hooks) if (offset < hook.end && hook.start < offset + size) hook.changed();
  }

  /** Lets the guest write the bits of `mask`. */
  allow(offset: number, size: number, mask: number): void {
    this.#writable[offset >> 2] |= (mask << (8 * (offset & 3))) & fieldMask(offset, size);
  }

  /** Takes the bits of `mask` from what the guest may write. */
  forbid(offset: number, size: number, mask: number): void {
    this.#writable[offset >> 2] &= ~((mask << (8 * (offset & 3))) & fieldMask(offset, size));
  }

  /** Bits of `mask` are cleared by writing 1 to them. */
  allowClear(offset: number, size: number, mask: number): void {
    this.#clearable[offset >> 2] |= (mask << (8 * (offset & 3))) & fieldMask(offset, size);
  }

  /** Calls `changed` after each guest write that touches [offset, offset + size). */
  watch(offset: number, size: number, changed: () => void): void {
    this.#hooks.push({ start: offset, end: offset + size, changed });
  }

  /**
   * Adds a capability (PCI 3.0, section 6.7): list links are kept, the rest is the caller's.
   * @param size bytes with the two of the list header.
   * @returns its offset.
   */
  addCapability(id: number, size: number): number {
    const offset = this.#nextCapability;
    if (offset + size > EXTENDED_START) throw new Error(`No room for a capability of ${size} bytes.`);
    this.#nextCapability = (offset + size + 3) & ~3;
    this.set(this.#lastCapability, 1, offset);
    this.set(offset, 1, id);
    this.#lastCapability = offset + 1;
    this.set(PCI.STATUS, 2, this.read(PCI.STATUS, 2) | PCI_STATUS_CAP_LIST);
    return offset;
  }

  /** Adds an extended capability (PCI Express Base Specification 4.0, section 7.6). @returns its offset. */
  addExtendedCapability(id: number, version: number, size: number): number {
    const offset = this.#nextExtended;
    if (offset + size > CONFIG_SPACE_SIZE) throw new Error(`No room for an extended capability of ${size} bytes.`);
    this.#nextExtended = (offset + size + 3) & ~3;
    if (this.#lastExtended)
      this.set(this.#lastExtended + 2, 2, (offset << 4) | (this.read(this.#lastExtended + 2, 2) & 0xf));
    this.set(offset, 4, id | (version << 16));
    this.#lastExtended = offset;
    return offset;
  }

  /** Takes what is there now as the values after a reset. */
  seal(): void {
    this.#initial = this.#words.slice();
  }

  /** Back to the sealed values. Nobody is told: the caller resets what depends on them. */
  reset(): void {
    if (!this.#initial) throw new Error('A configuration space is reset only after it was sealed.');
    for (let i = 0; i < WORDS; i++) Atomics.store(this.#words, i, this.#initial[i]);
  }

  /** What a snapshot keeps: every word that differs from its value after a reset. */
  save(): Record<string, number> {
    const changed: Record<string, number> = {};
    const initial = this.#initial as Int32Array;
    for (let i = 0; i < WORDS; i++) if (this.#words[i] !== initial[i]) changed[i * 4] = this.#words[i] >>> 0;
    return changed;
  }

  /** @throws Error when `state` names a bit that no guest could have changed. */
  restore(state: unknown): void {
    if (typeof state !== 'object' || state === null) throw new Error('A configuration space is saved as an object.');
    const initial = this.#initial as Int32Array;
    const next = initial.slice();
    for (const [key, value] of Object.entries(state)) {
      const offset = Number(key);
      if (!Number.isInteger(offset) || offset < 0 || offset >= CONFIG_SPACE_SIZE || offset & 3) {
        throw new Error(`No configuration register stands at ${key}.`);
      }
      if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) {
        throw new Error(`Configuration register 0x${offset.toString(16)} cannot hold ${value}.`);
      }
      next[offset >> 2] = value;
    }
    for (let i = 0; i < WORDS; i++) Atomics.store(this.#words, i, next[i]);
  }
}

const fieldMask = (offset: number, size: number): number =>
  size === 4 ? -1 : ((1 << (8 * size)) - 1) << (8 * (offset & 3));
