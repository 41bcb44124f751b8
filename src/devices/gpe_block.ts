/** A block of general purpose events (ACPI specification 6.4, section 4.8.4.1): status bits, then as many to enable them. */
import { bytesIn } from './state.ts';

export class GpeBlock {
  /** Bytes of status and of enable bits, each. */
  readonly #half: number;
  readonly #bytes: Uint8Array;
  /**
   * Events that came while they were not enabled. A kernel that boots clears every status bit before it enables any
   * (ACPICA), and with it what it was told of too early: what it has not heard is set again when it begins to listen.
   */
  readonly #unheard: Uint8Array;
  /** Events that were enabled since the reset. Linux takes that back while it handles one. */
  readonly #known: Uint8Array;

  /** @param length bytes of the block. */
  constructor(length: number) {
    this.#half = length / 2;
    this.#bytes = new Uint8Array(length);
    this.#unheard = new Uint8Array(this.#half);
    this.#known = new Uint8Array(this.#half);
  }

  read(offset: number): number {
    return this.#bytes[offset];
  }

  /** Status is cleared by ones. */
  write(offset: number, byte: number): void {
    if (offset < this.#half) {
      this.#bytes[offset] &= ~byte;
      return;
    }
    this.#bytes[offset] = byte;
    const at = offset - this.#half;
    this.#bytes[at] |= this.#unheard[at] & byte;
    this.#unheard[at] &= ~byte;
    this.#known[at] |= byte;
  }

  /** Sets an event's status bit. */
  raise(number: number): void {
    const [at, bit] = [number >> 3, 1 << (number & 7)];
    this.#bytes[at] |= bit;
    if (!(this.#bytes[this.#half + at] & bit)) this.#unheard[at] |= bit;
  }

  /** Whether the guest has listened to an event since it was reset. */
  isKnown(number: number): boolean {
    return (this.#known[number >> 3] & (1 << (number & 7))) !== 0;
  }

  /** Whether an event is set that is enabled. */
  get active(): boolean {
    for (let at = 0; at < this.#half; at++) if (this.#bytes[at] & this.#bytes[this.#half + at]) return true;
    return false;
  }

  reset(): void {
    this.#bytes.fill(0);
    this.#unheard.fill(0);
    this.#known.fill(0);
  }

  save(): { gpe: number[]; unheard: number[]; known: number[] } {
    return { gpe: [...this.#bytes], unheard: [...this.#unheard], known: [...this.#known] };
  }

  /** @throws Error that names the field. @returns what sets the state, once all else of it was checked too. */
  restore(fields: Record<string, unknown>): () => void {
    const bytes = bytesIn(fields, 'gpe', this.#bytes.length);
    const unheard = bytesIn(fields, 'unheard', this.#half);
    const known = bytesIn(fields, 'known', this.#half);
    return () => {
      this.reset();
      this.#bytes.set(bytes);
      this.#unheard.set(unheard);
      this.#known.set(known);
    };
  }
}
