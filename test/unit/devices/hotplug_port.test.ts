/** A hot-plug slot with a driver's side of it, in the order in which Linux does things. */
import { expect, test } from 'vitest';
import { EXP } from '../../../src/devices/pci/express.ts';
import { RootPort } from '../../../src/devices/pci/root_port.ts';
import { FakeMemory } from '../../support/board.ts';
import { FakeSlot } from '../../support/pci_slot.ts';

const EXPRESS = 0x10;
const LISTENS = 0x1021;
const ON = 0x1c0 | LISTENS;
const BLINKS = 0x2c0 | LISTENS;
const OFF = 0x7c0 | LISTENS;

function slot() {
  const port = new RootPort('rp0', new FakeSlot(new FakeMemory(2 ** 20)), { slotNumber: 1, serial: 1n });
  port.config.seal();
  let at = port.config.read(0x34, 1);
  while (port.config.read(at, 1) !== EXPRESS) at = port.config.read(at + 1, 1);
  const told: string[] = [];
  port.watcher = {
    noticed: () => told.push('noticed'),
    turnedOn: () => told.push('turned on'),
    leaving: () => told.push('leaving'),
    kept: () => told.push('kept'),
    turnedOff: () => told.push('turned off'),
    settled: () => told.push('settled'),
  };
  const control = (value: number) => port.config.write(at + EXP.SLTCTL, 2, value);
  const events = () => {
    const status = port.config.read(at + EXP.SLTSTA, 2);
    port.config.write(at + EXP.SLTSTA, 2, status);
    return status & ~0x10;
  };
  control(OFF);
  events();
  told.length = 0;
  return { port, told, control, events };
}

test('a device comes, is asked to go, and goes when the driver has turned the slot off', () => {
  const { port, told, control, events } = slot();
  port.insert();
  // Present, presence and link changed.
  expect(events()).toBe(0x148);
  control(BLINKS);
  control(ON);
  expect(told.splice(0)).toEqual(['noticed', 'turned on']);
  expect(port.slotState).toMatchObject({ occupied: true, powered: true, powerIndicator: 'on', linkActive: true });
  events();
  port.pressAttentionButton();
  expect(events() & 1).toBe(1);
  control(BLINKS);
  control(OFF);
  expect(told.splice(0)).toEqual(['noticed', 'noticed', 'leaving', 'turned off']);
  expect(port.isOff).toBe(true);
  port.remove();
  expect(port.slotState).toMatchObject({ occupied: false, linkActive: false });
});

test('a driver that has another mind keeps the device', () => {
  const { port, told, control } = slot();
  port.insert();
  control(ON);
  port.pressAttentionButton();
  control(BLINKS);
  control(ON);
  expect(told).toEqual(['turned on', 'leaving', 'kept']);
});

test('after a surprise removal the next device waits until the driver has tidied up', () => {
  const { port, told, control, events } = slot();
  port.insert();
  control(ON);
  events();
  port.remove();
  // Nothing is present; presence and link changed.
  expect(events()).toBe(0x108);
  port.insert();
  expect(port.isSettling).toBe(true);
  expect(port.slotState.occupied).toBe(false);
  control(OFF);
  expect(port.isSettling).toBe(false);
  expect(port.slotState.occupied).toBe(true);
  expect(told).toEqual(['turned on', 'noticed', 'noticed', 'settled']);
});

test('a button that was pressed before a driver listens is pressed again when one does', () => {
  const { port, told, control, events } = slot();
  port.reset();
  port.occupy();
  port.pressAttentionButton();
  // What it clears before it begins is none that it has taken.
  events();
  expect(told.splice(0)).toEqual([]);
  control(ON);
  expect(events() & 1).toBe(1);
  expect(told).toEqual(['noticed']);
  // Once is enough.
  control(ON & ~LISTENS);
  control(ON);
  expect(events() & 1).toBe(0);
});
