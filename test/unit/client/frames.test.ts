import { expect, test } from 'vitest';
import { encodeFrame, FrameDecoder, MAX_PAYLOAD } from '../../../src/client/frames.ts';

test('frames come out whole, however the stream is cut', () => {
  const frames = [
    { type: 1, channel: 0, payload: Buffer.from('{"a":1}') },
    { type: 2, channel: 0xffffffff, payload: Buffer.alloc(0) },
    { type: 255, channel: 7, payload: Buffer.alloc(70_000, 'x') },
  ];
  const stream = Buffer.concat(frames.map(({ type, channel, payload }) => encodeFrame(type, channel, payload)));
  for (const cut of [1, 2, 9, 10, 4096, stream.length]) {
    const decoder = new FrameDecoder();
    const out = [];
    for (let i = 0; i < stream.length; i += cut) out.push(...decoder.push(stream.subarray(i, i + cut)));
    expect(out.map((frame) => ({ ...frame, payload: Buffer.from(frame.payload) }))).toEqual(frames);
  }
});

test('a length beyond the limit is refused before anything is kept', () => {
  const header = Buffer.alloc(9);
  header.writeUInt32LE(MAX_PAYLOAD + 1, 0);
  expect(() => new FrameDecoder().push(header)).toThrow(`A frame announces ${MAX_PAYLOAD + 1} bytes`);
  expect(() => encodeFrame(1, 0, Buffer.alloc(MAX_PAYLOAD + 1))).toThrow(RangeError);
});

test('random bytes never do more than throw that', () => {
  let seed = 7;
  const random = () => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed / 0x7fffffff;
  };
  for (let round = 0; round < 2000; round++) {
    const decoder = new FrameDecoder();
    const bytes = Buffer.from(Array.from({ length: 40 }, () => (random() < 0.6 ? 0 : Math.floor(random() * 256))));
    try {
      for (let i = 0; i < bytes.length; i += 7) decoder.push(bytes.subarray(i, i + 7));
    } catch (error) {
      expect(error).toMatchObject({ code: 'FRAME_TOO_LONG' });
    }
  }
});
