/**
 * The port and the page through which an ACPI guest speaks with NVDIMMs: it puts a _DSM call into the page, writes
 * the page's address to the port, and finds the answer in the page, as QEMU's docs/specs/acpi_nvdimm.rst has it.
 */
import type { Device, DeviceState, GuestFault, GuestMemory, Region } from './device.ts';
import { booleanIn, requireKind } from './state.ts';

const KIND = 'acpi-nvdimm';

/** Bytes of the page. */
export const DSM_PAGE = 4096;
/** A call: handle, revision, function, argument. */
const IN = { HANDLE: 0, REVISION: 4, FUNCTION: 8, ARGUMENT: 12 } as const;
/** An answer: bytes in all, then status, then what the function gives. */
const OUT = { LENGTH: 0, STATUS: 4, DATA: 8 } as const;

const REVISION = 1;
/** Handles that are no NVDIMM's: the root device, and the one for what is QEMU's own. */
const HANDLE_ROOT = 0;
const HANDLE_FIT = 0x10000;

const FN_QUERY = 0;
/** Of HANDLE_FIT. */
const FN_READ_FIT = 1;
/** Of an NVDIMM (Intel's NVDIMM DSM interface, sections 3.5 to 3.7). */
const FN_LABEL_SIZE = 4;
const FN_GET_LABELS = 5;
const FN_SET_LABELS = 6;

const SUCCESS = 0;
const NOT_SUPPORTED = 1;
const NO_SUCH_DEVICE = 2;
const INVALID = 3;
const HARDWARE_ERROR = 4;
const FIT_CHANGED = 0x100;

/** Of the arguments of functions 5 and 6: where, and how many bytes. */
const LABEL_ARGUMENT = 8;
/** What a call and an answer both have room for. */
export const MAX_LABEL_TRANSFER = DSM_PAGE - IN.ARGUMENT - LABEL_ARGUMENT;

/** The label area of one NVDIMM. */
export interface NvdimmLabels {
  /** Bytes; 0 for one that has none. */
  readonly labelSize: number;
  /** A range that is within. */
  readLabels(offset: number, length: number): Uint8Array;
  /** @param done called with 0 or an errno once the bytes are on stable storage. */
  writeLabels(offset: number, bytes: Uint8Array, done: (errno: number) => void): void;
}

export interface AcpiNvdimmOptions {
  readonly memory: GuestMemory;
  /** The NFIT's structures as they are now. */
  readonly fit: () => Uint8Array;
  /** The NVDIMM with this NFIT handle. */
  readonly nvdimm: (handle: number) => NvdimmLabels | undefined;
  /** Holds the access that is being served until the returned function is called. */
  readonly hold: () => () => void;
  /** The guest's handler of GPE.4 is to run. */
  readonly notify: () => void;
  /** The guest has read the structures from the first to the last, without a change meanwhile. */
  readonly fitRead: () => void;
  readonly fault: GuestFault;
}

export class AcpiNvdimm implements Device, Region {
  readonly name = KIND;
  readonly size = 4;
  readonly #options: AcpiNvdimmOptions;
  /** The structures have changed since the guest began to read them. */
  #changed = false;

  constructor(options: AcpiNvdimmOptions) {
    this.#options = options;
  }

  /** The structures are others now. @param tell whether the guest is to look at them. */
  fitChanged(tell: boolean): void {
    this.#changed = true;
    if (tell) this.#options.notify();
  }

  read(): number {
    return 0;
  }

  write(offset: number, size: number, value: number): void {
    if (offset !== 0 || size !== 4) return;
    const page = this.#options.memory.slice(value, DSM_PAGE);
    if (!page) {
      this.#options.fault(KIND, `the page of a _DSM call at 0x${value.toString(16)} is not RAM`);
      return;
    }
    // The guest may change the page at any time: it is looked at once.
    const call = page.slice();
    const view = new DataView(call.buffer);
    const handle = view.getUint32(IN.HANDLE, true);
    const fn = view.getUint32(IN.FUNCTION, true);
    const answer = new Answer(page);
    if (view.getUint32(IN.REVISION, true) !== REVISION) answer.status(NOT_SUPPORTED);
    else if (handle === HANDLE_FIT) this.#fit(fn, view, answer);
    else if (handle === HANDLE_ROOT) this.#query(fn, 0, answer);
    else this.#nvdimm(handle, fn, view, answer);
  }

  /** Function 0 of anything: a bit for each function that there is, bit 0 for any besides itself. */
  #query(fn: number, functions: number, answer: Answer): void {
    answer.status(fn === FN_QUERY ? functions : NOT_SUPPORTED);
  }

  #fit(fn: number, call: DataView, answer: Answer): void {
    if (fn !== FN_READ_FIT) {
      this.#query(fn, (1 << FN_QUERY) | (1 << FN_READ_FIT), answer);
      return;
    }
    const offset = call.getUint32(IN.ARGUMENT, true);
    const structures = this.#options.fit();
    if (offset === 0) this.#changed = false;
    else if (this.#changed) {
      answer.status(FIT_CHANGED);
      return;
    }
    if (offset > structures.length) {
      answer.status(INVALID);
      return;
    }
    answer.data(structures.subarray(offset, offset + DSM_PAGE - OUT.DATA));
    if (offset === structures.length) this.#options.fitRead();
  }

  #nvdimm(handle: number, fn: number, call: DataView, answer: Answer): void {
    const nvdimm = this.#options.nvdimm(handle);
    const hasLabels = nvdimm !== undefined && nvdimm.labelSize > 0;
    if (fn === FN_QUERY) {
      const labels = (1 << FN_LABEL_SIZE) | (1 << FN_GET_LABELS) | (1 << FN_SET_LABELS);
      answer.status(hasLabels ? (1 << FN_QUERY) | labels : 0);
    } else if (!nvdimm) answer.status(NO_SUCH_DEVICE);
    else if (!hasLabels) answer.status(NOT_SUPPORTED);
    else if (fn === FN_LABEL_SIZE) {
      const sizes = new DataView(new ArrayBuffer(8));
      sizes.setUint32(0, nvdimm.labelSize, true);
      sizes.setUint32(4, MAX_LABEL_TRANSFER, true);
      answer.data(new Uint8Array(sizes.buffer));
    } else if (fn === FN_GET_LABELS || fn === FN_SET_LABELS) this.#labels(nvdimm, fn, call, answer);
    else answer.status(NOT_SUPPORTED);
  }

  #labels(nvdimm: NvdimmLabels, fn: number, call: DataView, answer: Answer): void {
    const offset = call.getUint32(IN.ARGUMENT, true);
    const length = call.getUint32(IN.ARGUMENT + 4, true);
    if (length > MAX_LABEL_TRANSFER || offset + length > nvdimm.labelSize) {
      answer.status(INVALID);
      return;
    }
    if (fn === FN_GET_LABELS) {
      answer.data(nvdimm.readLabels(offset, length));
      return;
    }
    const from = IN.ARGUMENT + LABEL_ARGUMENT;
    const release = this.#options.hold();
    nvdimm.writeLabels(offset, new Uint8Array(call.buffer, from, length), (errno) => {
      answer.status(errno === 0 ? SUCCESS : HARDWARE_ERROR);
      release();
    });
  }

  reset(): void {
    this.#changed = false;
  }

  save(): DeviceState {
    return { kind: KIND, version: 1, changed: this.#changed };
  }

  restore(state: unknown): void {
    this.#changed = booleanIn(requireKind(state, KIND, 1), 'changed');
  }
}

/** The answer to a call, in the guest's page. */
class Answer {
  readonly #page: Uint8Array;

  constructor(page: Uint8Array) {
    this.#page = page;
  }

  #header(length: number, status: number): void {
    const view = new DataView(this.#page.buffer, this.#page.byteOffset, OUT.DATA);
    view.setUint32(OUT.LENGTH, length, true);
    view.setUint32(OUT.STATUS, status, true);
  }

  status(value: number): void {
    this.#header(OUT.DATA, value);
  }

  data(bytes: Uint8Array): void {
    this.#header(OUT.DATA + bytes.length, SUCCESS);
    this.#page.set(bytes, OUT.DATA);
  }
}
