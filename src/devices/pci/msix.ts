import type { Region } from '../device.ts';
import type { MsiSink, PciFunction } from './function.ts';

const PCI_CAP_ID_MSIX = 0x11;
const ENTRY_SIZE = 16;
const CONTROL_MASKALL = 0x4000;
const CONTROL_ENABLE = 0x8000;
const VECTOR_MASKED = 1;

/**
 * MSI-X (PCI 3.0, section 6.8.2): the capability, a table of `vectors` entries and the pending bits, in one
 * region that is a BAR or a part of one.
 */
export class Msix implements Region {
  readonly name: string;
  readonly size: number;
  readonly vectors: number;
  readonly #table: DataView;
  readonly #pending: Uint32Array;
  readonly #pba: number;
  readonly #capability: number;
  readonly #function: PciFunction;
  readonly #sink: MsiSink;

  /** @param bar index of the BAR, @param offset of this region in it. */
  constructor(pci: PciFunction, sink: MsiSink, vectors: number, bar: number, offset = 0) {
    this.name = `${pci.name}-msix`;
    this.vectors = vectors;
    this.#function = pci;
    this.#sink = sink;
    this.#table = new DataView(new ArrayBuffer(vectors * ENTRY_SIZE));
    this.#pending = new Uint32Array(Math.ceil(vectors / 64) * 2);
    this.#pba = Math.max(0x800, 2 ** Math.ceil(Math.log2(vectors * ENTRY_SIZE)));
    this.size = 2 ** Math.ceil(Math.log2(Math.max(0x1000, this.#pba + this.#pending.byteLength)));
    const { config } = pci;
    this.#capability = config.addCapability(PCI_CAP_ID_MSIX, 12);
    config.set(this.#capability + 2, 2, vectors - 1);
    config.allow(this.#capability + 2, 2, CONTROL_ENABLE | CONTROL_MASKALL);
    config.set(this.#capability + 4, 4, offset | bar);
    config.set(this.#capability + 8, 4, (offset + this.#pba) | bar);
    config.watch(this.#capability + 2, 2, () => this.#sendPending());
    this.reset();
  }

  get #control(): number {
    return this.#function.config.read(this.#capability + 2, 2);
  }

  get enabled(): boolean {
    return (this.#control & CONTROL_ENABLE) !== 0;
  }

  /** Sends the vector's message, or keeps it pending while it is masked. Vectors that do not exist are ignored. */
  notify(vector: number): void {
    if (vector >= this.vectors || !this.enabled) return;
    if (this.#control & CONTROL_MASKALL || this.#masked(vector)) {
      this.#pending[vector >> 5] |= 1 << (vector & 31);
      return;
    }
    this.#send(vector);
  }

  #masked(vector: number): boolean {
    return (this.#table.getUint32(vector * ENTRY_SIZE + 12, true) & VECTOR_MASKED) !== 0;
  }

  #send(vector: number): void {
    // A message is a memory write of the function: it needs bus mastering.
    if (!this.#function.busMaster) return;
    const entry = vector * ENTRY_SIZE;
    const address = this.#table.getUint32(entry, true) + this.#table.getUint32(entry + 4, true) * 2 ** 32;
    this.#sink.send(address, this.#table.getUint32(entry + 8, true));
  }

  #sendPending(): void {
    if (!this.enabled || this.#control & CONTROL_MASKALL) return;
    for (let word = 0; word < this.#pending.length; word++) {
      if (this.#pending[word] === 0) continue;
      for (let bit = 0; bit < 32; bit++) {
        const vector = word * 32 + bit;
        if (!(this.#pending[word] & (1 << bit)) || this.#masked(vector)) continue;
        this.#pending[word] &= ~(1 << bit);
        this.#send(vector);
      }
    }
  }

  /** An entry of the table, for people. */
  entry(vector: number): { address: number; data: number; masked: boolean; pending: boolean } {
    const at = vector * ENTRY_SIZE;
    return {
      address: this.#table.getUint32(at, true) + this.#table.getUint32(at + 4, true) * 2 ** 32,
      data: this.#table.getUint32(at + 8, true),
      masked: this.#masked(vector),
      pending: (this.#pending[vector >> 5] & (1 << (vector & 31))) !== 0,
    };
  }

  read(offset: number, size: number): number {
    if (offset + size <= this.#table.byteLength) {
      return size === 1
        ? this.#table.getUint8(offset)
        : size === 2
          ? this.#table.getUint16(offset, true)
          : this.#table.getUint32(offset, true);
    }
    const at = offset - this.#pba;
    if (at < 0 || at + size > this.#pending.byteLength) return 0;
    const value = this.#pending[at >> 2] >>> (8 * (at & 3));
    return size === 4 ? value >>> 0 : value & (size === 1 ? 0xff : 0xffff);
  }

  write(offset: number, size: number, value: number): void {
    // The pending bits are read-only, and what is behind the table is nothing.
    if (offset + size > this.#table.byteLength) return;
    if (size === 1) this.#table.setUint8(offset, value);
    else if (size === 2) this.#table.setUint16(offset, value, true);
    else this.#table.setUint32(offset, value, true);
    const control = (offset & ~15) + 12;
    // Vector control has one bit; the rest is reserved.
    this.#table.setUint32(control, this.#table.getUint32(control, true) & VECTOR_MASKED, true);
    if (offset + size > control) this.#sendPending();
  }

  /** All vectors are masked after a reset, none is pending. */
  reset(): void {
    new Uint8Array(this.#table.buffer).fill(0);
    for (let vector = 0; vector < this.vectors; vector++) {
      this.#table.setUint32(vector * ENTRY_SIZE + 12, VECTOR_MASKED, true);
    }
    this.#pending.fill(0);
  }

  save(): { table: string; pending: number[] } {
    return { table: Buffer.from(this.#table.buffer).toString('base64'), pending: [...this.#pending] };
  }

  /** @throws Error when the state is not of a table of this size. */
  restore(state: unknown): void {
    const { table, pending } = (state ?? {}) as { table?: unknown; pending?: unknown };
    const bytes = typeof table === 'string' ? Buffer.from(table, 'base64') : undefined;
    if (bytes?.length !== this.#table.byteLength) throw new Error(`${this.name}: the table has another size.`);
    if (
      !Array.isArray(pending) ||
      pending.length !== this.#pending.length ||
      pending.some(
        (word, index) =>
          !Number.isInteger(word) || word < 0 || word >= 2 ** Math.min(32, Math.max(0, this.vectors - 32 * index)),
      )
    ) {
      throw new Error(`${this.name}: the pending bits are not those of this table.`);
    }
    new Uint8Array(this.#table.buffer).set(bytes);
    this.#pending.set(pending);
  }
}
