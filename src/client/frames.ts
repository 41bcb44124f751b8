/**
 * Frames of the engine's byte streams (unix sockets, virtio-serial): u32 payload length, u8 type, u32
 * channel, all little endian, then the payload. Both ends are untrusted: a decoder refuses what is too long.
 */
import { NemuError } from './errors.ts';

export const FRAME_HEADER = 9;
/** Longest payload. Larger things travel as several frames. */
export const MAX_PAYLOAD = 1 << 20;

export interface Frame {
  /** 0–255; what it means is the protocol's business. */
  readonly type: number;
  readonly channel: number;
  readonly payload: Uint8Array;
}

/** @throws RangeError when the payload is longer than MAX_PAYLOAD. */
export function encodeFrame(type: number, channel: number, payload: Uint8Array = new Uint8Array(0)): Buffer {
  if (payload.length > MAX_PAYLOAD)
    throw new RangeError(`A frame of ${payload.length} bytes is longer than ${MAX_PAYLOAD}.`);
  const frame = Buffer.allocUnsafe(FRAME_HEADER + payload.length);
  frame.writeUInt32LE(payload.length, 0);
  frame.writeUInt8(type, 4);
  frame.writeUInt32LE(channel, 5);
  frame.set(payload, FRAME_HEADER);
  return frame;
}

/** Cuts a byte stream into frames, however it arrives. */
export class FrameDecoder {
  #chunks: Uint8Array[] = [];
  #length = 0;

  /**
   * Takes the next bytes and gives the frames that are whole now.
   * @throws NemuError `FRAME_TOO_LONG`; the stream cannot be used any further.
   */
  push(bytes: Uint8Array): Frame[] {
    if (bytes.length > 0) {
      this.#chunks.push(bytes);
      this.#length += bytes.length;
    }
    const frames: Frame[] = [];
    while (this.#length >= FRAME_HEADER) {
      const header = this.#peek(FRAME_HEADER);
      const length = header.readUInt32LE(0);
      if (length > MAX_PAYLOAD) {
        throw new NemuError('FRAME_TOO_LONG', `A frame announces ${length} bytes; ${MAX_PAYLOAD} is the most.`);
      }
      if (this.#length < FRAME_HEADER + length) break;
      const whole = this.#take(FRAME_HEADER + length);
      frames.push({ type: whole[4], channel: whole.readUInt32LE(5), payload: whole.subarray(FRAME_HEADER) });
    }
    return frames;
  }

  /** The first `count` bytes; joins chunks only when they are split over several. */
  #peek(count: number): Buffer {
    if (this.#chunks[0].length < count) this.#chunks = [Buffer.concat(this.#chunks)];
    const first = this.#chunks[0];
    return Buffer.from(first.buffer, first.byteOffset, count);
  }

  #take(count: number): Buffer {
    if (this.#chunks[0].length < count) this.#chunks = [Buffer.concat(this.#chunks)];
    const first = this.#chunks[0];
    const taken = Buffer.from(first.buffer, first.byteOffset, count);
    if (first.length === count) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(count);
    this.#length -= count;
    return taken;
  }
}
