/**
 * QEMU's firmware configuration device (QEMU docs/specs/fw_cfg; linux/qemu_fw_cfg.h): items by key, files by
 * name, read through a data port or by DMA. Writes go by DMA alone, and only to files declared writable.
 */
import type { Device, DeviceState, GuestMemory, Region } from './device.ts';
import { bytesIn, integerIn, requireKind } from './state.ts';

export const FW_CFG_SIGNATURE = 0x00;
export const FW_CFG_ID = 0x01;
export const FW_CFG_RAM_SIZE = 0x03;
export const FW_CFG_NOGRAPHIC = 0x04;
export const FW_CFG_NB_CPUS = 0x05;
export const FW_CFG_BOOT_MENU = 0x0e;
export const FW_CFG_MAX_CPUS = 0x0f;
export const FW_CFG_FILE_DIR = 0x19;
export const FW_CFG_FILE_FIRST = 0x20;
const FW_CFG_WRITE_CHANNEL = 0x4000;
const FW_CFG_LAST_KEY = 0x3fff;
/** With the NUL behind it. */
const FW_CFG_MAX_FILE_PATH = 56;
const FW_CFG_FILE_ENTRY = 64;
const FW_CFG_VERSION = 0x01;
const FW_CFG_VERSION_DMA = 0x02;

const FW_CFG_DMA_CTL_ERROR = 0x01;
const FW_CFG_DMA_CTL_READ = 0x02;
const FW_CFG_DMA_CTL_SKIP = 0x04;
const FW_CFG_DMA_CTL_SELECT = 0x08;
const FW_CFG_DMA_CTL_WRITE = 0x10;
/** struct fw_cfg_dma_access: control, length, address, big-endian. */
const DMA_ACCESS_SIZE = 16;

/** Where the registers stand on x86, from the first port. */
const SELECTOR = 0;
const DATA = 1;
const DMA_HIGH = 4;
const DMA_LOW = 8;
const KIND = 'fw-cfg';

const ascii = (text: string) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
const DMA_SIGNATURE = ascii('QEMU CFG');

/** Little-endian bytes of an unsigned number below 2^53: the form of most items with a number. */
export function littleEndian(value: number, length: 1 | 2 | 4 | 8): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0, left = value; i < length; i++, left = Math.floor(left / 256)) bytes[i] = left % 256;
  return bytes;
}

interface Item {
  readonly bytes: Uint8Array;
  /** Set for a file that the guest may write: what it holds after a reset. */
  readonly initial?: Uint8Array;
  readonly onWrite?: (offset: number, length: number) => void;
}

interface File {
  readonly name: string;
  readonly key: number;
  readonly item: Item;
}

export interface FwCfgOptions {
  readonly memory: GuestMemory;
}

/** Twelve ports: selector (16 bits) with the data port behind its first byte, and the DMA address at offset 4. */
export class FwCfg implements Device, Region {
  readonly name = 'fw_cfg';
  readonly size = 12;
  readonly #memory: GuestMemory;
  readonly #items = new Map<number, Item>();
  readonly #files: File[] = [];
  #key = 0;
  #offset = 0;
  /** The upper half of the DMA address, until the lower half starts the transfer. */
  #dmaHigh = 0;

  constructor(options: FwCfgOptions) {
    this.#memory = options.memory;
    this.addItem(FW_CFG_SIGNATURE, ascii('QEMU'));
    this.addItem(FW_CFG_ID, littleEndian(FW_CFG_VERSION | FW_CFG_VERSION_DMA, 4));
    this.#items.set(FW_CFG_FILE_DIR, { bytes: new Uint8Array(4) });
  }

  /**
   * Adds an item that firmware finds by its key (bit 15: particular to the architecture).
   * @throws Error when the key is taken, or no item's.
   */
  addItem(key: number, bytes: Uint8Array): void {
    if (key < 0 || key > 0xffff || key & FW_CFG_WRITE_CHANNEL || this.#items.has(key)) {
      throw new Error(`The fw_cfg key 0x${key.toString(16)} is taken or out of range.`);
    }
    this.#items.set(key, { bytes });
  }

  /**
   * Adds a file. With `onWrite` the guest may write into `bytes`, within its length; it is called after each
   * write with the place that changed.
   * @returns the file's key.
   * @throws Error when the name is taken, or is not 1 to 55 characters of printable ASCII.
   */
  addFile(name: string, bytes: Uint8Array, onWrite?: (offset: number, length: number) => void): number {
    if (!/^[!-~]{1,55}$/.test(name)) {
      throw new Error(`The fw_cfg file name "${name}" is not 1 to 55 characters of printable ASCII.`);
    }
    if (this.#files.some((file) => file.name === name)) throw new Error(`The fw_cfg file ${name} is there already.`);
    const key = FW_CFG_FILE_FIRST + this.#files.length;
    if (key > FW_CFG_LAST_KEY) throw new Error(`fw_cfg has no key left for the file ${name}.`);
    const item: Item = onWrite ? { bytes, initial: bytes.slice(), onWrite } : { bytes };
    this.#items.set(key, item);
    this.#files.push({ name, key, item });
    this.#items.set(FW_CFG_FILE_DIR, { bytes: this.#directory() });
    return key;
  }

  /** The directory item: a count, then entries of size, key, reserved and name, big-endian. */
  #directory(): Uint8Array {
    const bytes = new Uint8Array(4 + this.#files.length * FW_CFG_FILE_ENTRY);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, this.#files.length);
    for (const [index, { name, key, item }] of this.#files.entries()) {
      const at = 4 + index * FW_CFG_FILE_ENTRY;
      view.setUint32(at, item.bytes.length);
      view.setUint16(at + 4, key);
      bytes.set(ascii(name), at + FW_CFG_FILE_ENTRY - FW_CFG_MAX_FILE_PATH);
    }
    return bytes;
  }

  reset(): void {
    this.#select(0);
    this.#dmaHigh = 0;
    for (const { item } of this.#files) {
      if (!item.initial) continue;
      item.bytes.set(item.initial);
      item.onWrite?.(0, item.bytes.length);
    }
  }

  read(offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.#readByte(offset + i) << (8 * i);
    return value >>> 0;
  }

  #readByte(offset: number): number {
    if (offset === DATA) return this.#nextByte();
    if (offset >= DMA_HIGH) return DMA_SIGNATURE[offset - DMA_HIGH];
    return 0;
  }

  #nextByte(): number {
    const item = this.#items.get(this.#key);
    if (item === undefined || this.#offset >= item.bytes.length) return 0;
    return item.bytes[this.#offset++];
  }

  /** `rep insb` on the data port. */
  readMany(offset: number, size: number, into: Uint8Array): void {
    if (offset === DATA && size === 1) {
      this.#take(into);
      return;
    }
    for (let i = 0; i < into.length; i++) into[i] = this.#readByte(offset + (i % size));
  }

  /** What is left of the selected item, then zeros. */
  #take(into: Uint8Array): void {
    const bytes = this.#items.get(this.#key)?.bytes;
    const taken = bytes ? Math.min(into.length, Math.max(0, bytes.length - this.#offset)) : 0;
    if (bytes) into.set(bytes.subarray(this.#offset, this.#offset + taken));
    into.fill(0, taken);
    this.#offset += taken;
  }

  /** Takes the widths that QEMU takes: 16 bits for the selector, 32 for each half of the DMA address. */
  write(offset: number, size: number, value: number): void {
    if (offset === SELECTOR && size === 2) this.#select(value);
    if (offset === DMA_HIGH && size === 4) this.#dmaHigh = swap32(value);
    if (offset === DMA_LOW && size === 4) {
      const gpa = this.#dmaHigh * 2 ** 32 + swap32(value);
      this.#dmaHigh = 0;
      this.#transfer(gpa);
    }
  }

  #select(key: number): void {
    this.#key = key & ~FW_CFG_WRITE_CHANNEL;
    this.#offset = 0;
  }

  /** Does what the structure at `gpa` says, and leaves 0 or the error bit in its control field. */
  #transfer(gpa: number): void {
    const access = new Uint8Array(DMA_ACCESS_SIZE);
    if (!Number.isSafeInteger(gpa)) return;
    if (!this.#memory.read(gpa, access)) {
      this.#finish(gpa, false);
      return;
    }
    const view = new DataView(access.buffer);
    const control = view.getUint32(0);
    const length = view.getUint32(4);
    const address = view.getUint32(8) * 2 ** 32 + view.getUint32(12);
    if (control & FW_CFG_DMA_CTL_SELECT) this.#select(control >>> 16);
    let good = true;
    if (control & FW_CFG_DMA_CTL_READ) good = this.#dmaRead(address, length);
    else if (control & FW_CFG_DMA_CTL_WRITE) good = this.#dmaWrite(address, length);
    else if (control & FW_CFG_DMA_CTL_SKIP) this.#skip(length);
    this.#finish(gpa, good);
  }

  #finish(gpa: number, good: boolean): void {
    this.#memory.write(gpa, Uint8Array.of(0, 0, 0, good ? 0 : FW_CFG_DMA_CTL_ERROR));
  }

  #dmaRead(address: number, length: number): boolean {
    if (length === 0) return true;
    const into = Number.isSafeInteger(address) ? this.#memory.slice(address, length) : undefined;
    if (into === undefined) return false;
    this.#take(into);
    return true;
  }

  /** All or nothing: a write that starts or ends beyond the item is an error. */
  #dmaWrite(address: number, length: number): boolean {
    if (length === 0) return true;
    const item = this.#items.get(this.#key);
    if (item?.initial === undefined || length > item.bytes.length - this.#offset) return false;
    const target = item.bytes.subarray(this.#offset, this.#offset + length);
    if (!Number.isSafeInteger(address) || !this.#memory.read(address, target)) return false;
    const offset = this.#offset;
    this.#offset += length;
    item.onWrite?.(offset, length);
    return true;
  }

  #skip(length: number): void {
    const end = this.#items.get(this.#key)?.bytes.length ?? 0;
    this.#offset = Math.max(this.#offset, Math.min(end, this.#offset + length));
  }

  /** Read-only items are not in the state: they come from the machine's description on either side. */
  save(): DeviceState {
    return {
      kind: KIND,
      version: 1,
      key: this.#key,
      offset: this.#offset,
      dmaHigh: this.#dmaHigh,
      written: this.#files
        .filter(({ item }) => item.initial)
        .map(({ name, item }) => ({ name, bytes: [...item.bytes] })),
    };
  }

  restore(state: unknown): void {
    const from = requireKind(state, KIND, 1);
    const key = integerIn(from, 'key', 0, 0xffff);
    const offset = integerIn(from, 'offset', 0, 0xffffffff);
    const dmaHigh = integerIn(from, 'dmaHigh', 0, 0xffffffff);
    const writable = this.#files.filter(({ item }) => item.initial);
    const written = from.written;
    if (!Array.isArray(written) || written.length !== writable.length) {
      throw new Error(`The state field written does not hold the ${writable.length} writable fw_cfg files.`);
    }
    const contents = writable.map(({ name, item }, index) => {
      const entry = written[index] as Record<string, unknown> | null;
      if (typeof entry !== 'object' || entry?.name !== name)
        throw new Error(`The fw_cfg file ${name} is not in the state.`);
      const bytes = bytesIn(entry, 'bytes', item.bytes.length);
      if (bytes.length !== item.bytes.length) {
        throw new Error(`The fw_cfg file ${name} has ${item.bytes.length} bytes; the state holds ${bytes.length}.`);
      }
      return bytes;
    });
    this.#select(key);
    this.#offset = Math.min(offset, this.#items.get(this.#key)?.bytes.length ?? 0);
    this.#dmaHigh = dmaHigh;
    for (const [index, { item }] of writable.entries()) {
      item.bytes.set(contents[index]);
      item.onWrite?.(0, item.bytes.length);
    }
  }
}

const swap32 = (value: number) =>
  (((value & 0xff) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0;
