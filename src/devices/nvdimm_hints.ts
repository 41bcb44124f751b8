/**
 * Flush hint addresses (ACPI specification 6.4, section 5.2.25.8): a write to an NVDIMM's address has what the guest
 * stored before on stable storage when the write is done. One address for each NVDIMM, a cache line apart.
 */
import type { Device, DeviceState, Region } from './device.ts';
import { requireKind } from './state.ts';

const KIND = 'nvdimm-hints';
/** Bytes from one address to the next. */
export const HINT_STRIDE = 64;

export interface NvdimmHintsOptions {
  readonly slots: number;
  /** @param done called once it is done; at once for a slot that has nothing to flush. */
  readonly flush: (slot: number, done: () => void) => void;
  /** Holds the access that is being served until the returned function is called. */
  readonly hold: () => () => void;
}

export class NvdimmHints implements Device, Region {
  readonly name = KIND;
  readonly size: number;
  readonly #options: NvdimmHintsOptions;

  constructor(options: NvdimmHintsOptions) {
    this.#options = options;
    this.size = options.slots * HINT_STRIDE;
  }

  read(): number {
    return 0;
  }

  /** A guest writes eight bytes, of which the first four arrive first. */
  write(offset: number): void {
    if (offset % HINT_STRIDE !== 0) return;
    this.#options.flush(offset / HINT_STRIDE, this.#options.hold());
  }

  reset(): void {}

  save(): DeviceState {
    return { kind: KIND, version: 1 };
  }

  restore(state: unknown): void {
    requireKind(state, KIND, 1);
  }
}
