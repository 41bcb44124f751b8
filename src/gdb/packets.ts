/** Packets of GDB's remote serial protocol: GDB manual, appendix E.1. */
import { NemuError } from '../client/errors.ts';

/** Bytes of a packet's contents, as they travel: `PacketSize` of qSupported. */
export const PACKET_SIZE = 0x4000;

export type Incoming =
  | { readonly type: 'packet'; readonly body: Buffer }
  /** The checksum was wrong. */
  | { readonly type: 'damaged' }
  | { readonly type: 'ack' | 'nack' | 'interrupt' };

const [START, END, ESCAPE, RUN_LENGTH, INTERRUPT] = [0x24, 0x23, 0x7d, 0x2a, 0x03];
const ESCAPED = 0x20;

function unescaped(bytes: Uint8Array): Buffer {
  const out = Buffer.alloc(bytes.length);
  let length = 0;
  for (let i = 0; i < bytes.length; i++) {
    out[length++] = bytes[i] === ESCAPE && i + 1 < bytes.length ? bytes[++i] ^ ESCAPED : bytes[i];
  }
  return out.subarray(0, length);
}

/** Cuts a stream into packets. It keeps no more than one packet. */
export class PacketDecoder {
  /** Contents, and what has come of the checksum; undefined between packets. */
  #packet: Buffer | undefined;
  #length = 0;
  #sum = 0;
  #checksum: string | undefined;

  /** @throws NemuError GDB_PROTOCOL for a packet that is longer than was agreed. */
  *push(bytes: Uint8Array): Generator<Incoming> {
    for (const byte of bytes) {
      const incoming = this.#packet ? this.#inside(byte, this.#packet) : this.#between(byte);
      if (incoming) yield incoming;
    }
  }

  #between(byte: number): Incoming | undefined {
    if (byte === START) this.#begin();
    else if (byte === INTERRUPT) return { type: 'interrupt' };
    else if (byte === 0x2b) return { type: 'ack' };
    else if (byte === 0x2d) return { type: 'nack' };
    return undefined;
  }

  #begin(): void {
    this.#packet ??= Buffer.alloc(PACKET_SIZE);
    this.#length = 0;
    this.#sum = 0;
    this.#checksum = undefined;
  }

  #inside(byte: number, packet: Buffer): Incoming | undefined {
    if (this.#checksum !== undefined) {
      this.#checksum += String.fromCharCode(byte);
      if (this.#checksum.length < 2) return undefined;
      const right = /^[0-9a-f]{2}$/i.test(this.#checksum) && Number.parseInt(this.#checksum, 16) === this.#sum;
      this.#packet = undefined;
      return right ? { type: 'packet', body: unescaped(packet.subarray(0, this.#length)) } : { type: 'damaged' };
    }
    if (byte === START) this.#begin();
    else if (byte === END) this.#checksum = '';
    else {
      if (this.#length === PACKET_SIZE) {
        throw new NemuError('GDB_PROTOCOL', `A packet is longer than the ${PACKET_SIZE} bytes that were agreed.`);
      }
      packet[this.#length++] = byte;
      this.#sum = (this.#sum + byte) & 0xff;
    }
    return undefined;
  }
}

/** A packet with its checksum. */
export function encodePacket(body: string | Uint8Array): Buffer {
  const bytes = typeof body === 'string' ? Buffer.from(body, 'latin1') : body;
  const out: number[] = [START];
  let sum = 0;
  const put = (byte: number) => {
    out.push(byte);
    sum = (sum + byte) & 0xff;
  };
  for (const byte of bytes) {
    if (byte === START || byte === END || byte === ESCAPE || byte === RUN_LENGTH) {
      put(ESCAPE);
      put(byte ^ ESCAPED);
    } else put(byte);
  }
  return Buffer.from([...out, END, ...Buffer.from(sum.toString(16).padStart(2, '0'))]);
}
