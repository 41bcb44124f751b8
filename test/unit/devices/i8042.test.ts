import { expect, test } from 'vitest';
import { I8042 } from '../../../src/devices/i8042.ts';

const STR_OBF = 0x01;
const STR_IBF = 0x02;
const STR_KEYLOCK = 0x10;
const STR_AUXDATA = 0x20;

function board() {
  const edges: boolean[] = [];
  let resets = 0;
  const chip = new I8042({ irq: { set: (level) => edges.push(level) }, reset: () => resets++ });
  const status = () => chip.command.read(0, 1);
  const read = () => chip.data.read(0, 1);
  const write = (value: number) => chip.data.write(0, 1, value);
  const command = (value: number) => chip.command.write(0, 1, value);
  /** Reads what is there, as a driver flushes; at most 16 bytes, as it does. */
  const flush = () => {
    const bytes: number[] = [];
    while (status() & STR_OBF && bytes.length < 16) bytes.push(read());
    return bytes;
  };
  return { chip, edges, resets: () => resets, status, read, write, command, flush };
}

test("the steps of Linux's i8042 driver: flush, self test, command byte, no auxiliary device, keyboard on", () => {
  const { status, command, read, write, flush } = board();
  expect(flush()).toEqual([]);
  expect(status() & STR_KEYLOCK, 'the keyboard is not locked').toBe(STR_KEYLOCK);
  command(0xaa);
  expect(status() & (STR_OBF | STR_IBF)).toBe(STR_OBF);
  expect(read()).toBe(0x55);
  command(0x20);
  const ctr = read();
  expect(ctr & 0x40, 'translation is on, as firmware leaves it').toBe(0x40);
  command(0x60);
  write((ctr | 0x10) & ~0x01);
  command(0x20);
  expect(read()).toBe((ctr | 0x10) & ~0x01);
  // The loop test's answer does not come from an auxiliary device; nor does its interface test pass.
  command(0xd3);
  write(0x5a);
  expect(status() & (STR_OBF | STR_AUXDATA)).toBe(STR_OBF);
  expect(flush()).toEqual([0x5a]);
  command(0xa9);
  expect([0x00, 0xfa, 0xff]).not.toContain(read());
  command(0xab);
  expect(read()).toBe(0);
  command(0xae);
  write(0xf2);
  expect(flush(), 'the identity, translated').toEqual([0xfa, 0xab, 0x41]);
  write(0xff);
  expect(flush()).toEqual([0xfa, 0xaa]);
});

test('the keyboard acknowledges commands with their parameters, and says what it does not know', () => {
  const { command, write, flush } = board();
  command(0x60);
  write(0x04);
  for (const [byte, answer] of [
    [0xed, [0xfa]],
    [0x07, [0xfa]],
    [0xf3, [0xfa]],
    [0x20, [0xfa]],
    [0xf0, [0xfa]],
    [0x03, [0xfa]],
    [0xf0, [0xfa]],
    [0x00, [0xfa, 3]],
    [0xfe, [3]],
    [0xf0, [0xfa]],
    [0x04, [0xfe]],
    [0xf4, [0xfa]],
    [0xf6, [0xfa]],
    [0xf0, [0xfa]],
    [0x00, [0xfa, 2]],
    [0xee, [0xee]],
    [0xf2, [0xfa, 0xab, 0x83]],
    [0x00, [0xfe]],
    [0xed, [0xfa]],
    [0xff, [0xfa, 0xaa]],
  ] as const) {
    write(byte);
    expect(flush(), `after 0x${byte.toString(16)}`).toEqual(answer);
  }
});

test('each byte makes an edge while the interrupt is enabled; a disabled keyboard waits', () => {
  const { command, write, read, edges, status } = board();
  write(0xff);
  expect(edges).toEqual([true]);
  read();
  expect(edges).toEqual([true, false, true]);
  read();
  expect(edges).toEqual([true, false, true, false]);
  command(0x60);
  write(0x04);
  write(0xf2);
  expect(edges, 'the interrupt is off').toHaveLength(4);
  command(0xad);
  expect(status() & STR_OBF).toBe(0);
  command(0xd0);
  expect(read() & 0x10, 'the answer of the controller comes all the same').toBe(0);
  command(0xae);
  expect([read(), read(), read()]).toEqual([0xfa, 0xab, 0x83]);
  expect(status() & STR_OBF).toBe(0);
  expect(read(), 'an empty buffer holds its last byte').toBe(0x83);
});

test('the reset line is pulled by a pulse and by the output port, which also gates A20', () => {
  const { chip, command, write, read, resets } = board();
  for (const harmless of [0xff, 0xf1, 0xfd]) command(harmless);
  expect(resets()).toBe(0);
  command(0xfe);
  command(0xf0);
  expect(resets()).toBe(2);
  command(0xd1);
  write(0x02);
  expect(resets()).toBe(3);
  command(0xd1);
  write(0x01);
  expect([resets(), chip.a20]).toEqual([3, false]);
  command(0xd0);
  expect(read()).toBe(0x01);
  command(0xdf);
  chip.reset();
  expect(chip.a20).toBe(true);
});

test('an auxiliary device that is absent gives no answer, and unread answers do not pile up', () => {
  const { command, write, flush } = board();
  command(0xd4);
  write(0xf2);
  expect(flush()).toEqual([0xfe]);
  for (let i = 0; i < 1000; i++) command(0xaa);
  expect(flush()).toEqual(Array(16).fill(0x55));
  expect(flush()).toEqual([]);
});
