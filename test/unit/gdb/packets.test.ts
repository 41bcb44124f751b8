import { describe, expect, test } from 'vitest';
import { encodePacket, type Incoming, PACKET_SIZE, PacketDecoder } from '../../../src/gdb/packets.ts';
import { random } from '../../support/random.ts';

const decode = (bytes: Uint8Array, decoder = new PacketDecoder()): Incoming[] => [...decoder.push(bytes)];

describe('packets', () => {
  test('has the sum of its bytes behind it', () => {
    expect(encodePacket('OK').toString()).toBe('$OK#9a');
    expect(encodePacket('').toString()).toBe('$#00');
  });

  test('escapes what has a meaning', () => {
    expect(encodePacket('a#b').toString('latin1')).toBe('$a}\x03b#43');
    expect(decode(Buffer.from('$a}\x03b#43', 'latin1'))).toEqual([{ type: 'packet', body: Buffer.from('a#b') }]);
  });

  test('takes packets in any pieces, with acknowledgements and interrupts between them', () => {
    const bytes = Buffer.from(`+${encodePacket('m10,4')}-\x03noise$?#3f`);
    const decoder = new PacketDecoder();
    const found = [...bytes].flatMap((byte) => decode(Uint8Array.of(byte), decoder));
    expect(found.map((each) => (each.type === 'packet' ? each.body.toString() : each.type))).toEqual([
      ...['ack', 'm10,4', 'nack', 'interrupt', '?'],
    ]);
  });

  test('tells a wrong sum, and what is none', () => {
    expect(decode(Buffer.from('$OK#00$OK#zz$OK#9a')).map(({ type }) => type)).toEqual(['damaged', 'damaged', 'packet']);
  });

  test('ends with a packet that is too long', () => {
    expect(() => decode(Buffer.concat([Buffer.from('$'), Buffer.alloc(PACKET_SIZE + 1, 0x61)]))).toThrow(
      'A packet is longer than the 16384 bytes that were agreed.',
    );
  });

  test('comes back as it went, whatever is in it', () => {
    const next = random(7);
    for (let round = 0; round < 500; round++) {
      const body = Buffer.from(Array.from({ length: next(200) }, () => next(256)));
      expect(decode(encodePacket(body))).toEqual([{ type: 'packet', body }]);
    }
  });

  test('takes any bytes without a throw, as long as no packet is too long', () => {
    const next = random(8);
    const decoder = new PacketDecoder();
    for (let round = 0; round < 2000; round++) {
      const bytes = Buffer.from(Array.from({ length: next(64) }, () => next(256)));
      for (const incoming of decode(Buffer.concat([bytes, Buffer.from('#00')]), decoder)) {
        expect(['packet', 'damaged', 'ack', 'nack', 'interrupt']).toContain(incoming.type);
      }
    }
  });
});
