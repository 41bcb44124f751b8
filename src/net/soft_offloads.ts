import { type NetBackend, OFFLOAD_CSUM, OFFLOAD_TSO_ECN, OFFLOAD_TSO4, OFFLOAD_TSO6 } from './backend.ts';

const HEADER_SIZE = 12;
/** virtio_net_hdr_v1 (virtio 1.2, section 5.1.6). */
const NEEDS_CSUM = 1;
const FLAGS = 0;
const CSUM_START = 6;
const CSUM_OFFSET = 8;

/**
 * Stands before a back end without offloads whose card has promised them to its driver, which was plugged into another
 * network before. Checksums are completed here. A frame of many segments goes on as it is, one segment of its whole
 * length: for back ends that end connections themselves and have no MTU towards the guest, as user networking.
 */
export class SoftOffloads implements NetBackend {
  readonly headerSize = HEADER_SIZE;
  readonly offloads = OFFLOAD_CSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_TSO_ECN;
  readonly #backend: NetBackend;

  constructor(backend: NetBackend) {
    this.#backend = backend;
  }

  get name(): string {
    return this.#backend.name;
  }

  get lost(): NetBackend['lost'] {
    return this.#backend.lost;
  }

  get onReadable(): (() => void) | undefined {
    return this.#backend.onReadable;
  }

  set onReadable(listener: (() => void) | undefined) {
    this.#backend.onReadable = listener;
  }

  get onWritable(): (() => void) | undefined {
    return this.#backend.onWritable;
  }

  set onWritable(listener: (() => void) | undefined) {
    this.#backend.onWritable = listener;
  }

  send(frame: Uint8Array): boolean {
    const bytes = frame.subarray(HEADER_SIZE);
    if (frame[FLAGS] & NEEDS_CSUM) {
      const start = frame[CSUM_START] | (frame[CSUM_START + 1] << 8);
      const at = start + (frame[CSUM_OFFSET] | (frame[CSUM_OFFSET + 1] << 8));
      // What does not lie in the frame is left to whoever looks at the checksum.
      if (at + 2 <= bytes.length) completeChecksum(bytes, start, at);
    }
    return this.#backend.send(bytes);
  }

  /** What comes in has its checksum already, so there is nothing to say of it. */
  receive(into: Uint8Array): number {
    const length = this.#backend.receive(into.subarray(HEADER_SIZE));
    if (length === 0) return 0;
    into.fill(0, 0, HEADER_SIZE);
    return length + HEADER_SIZE;
  }

  setOffloads(): void {}

  close(): void {
    this.#backend.close();
  }
}

/** The sum over all from `start` on, the pseudo header's sum among it, goes to `at` (RFC 1071). */
function completeChecksum(bytes: Uint8Array, start: number, at: number): void {
  let sum = 0;
  for (let i = start; i < bytes.length; i += 2) sum += (bytes[i] << 8) | (i + 1 < bytes.length ? bytes[i + 1] : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  // 0 would mean that there is none (RFC 768).
  const checksum = ~sum & 0xffff || 0xffff;
  bytes[at] = checksum >> 8;
  bytes[at + 1] = checksum & 0xff;
}
