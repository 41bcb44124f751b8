import { describe, expect, test } from 'vitest';
import { I6300esb } from '../../../src/devices/i6300esb.ts';
import { PCI, PCI_COMMAND_MEMORY } from '../../../src/devices/pci/config_space.ts';
import { FakeClock, FakeMemory } from '../../support/board.ts';
import { FakeSlot } from '../../support/pci_slot.ts';

const CONFIG = 0x60;
const LOCK = 0x68;
const TIMER1 = 0x00;
const TIMER2 = 0x04;
const STATUS = 0x08;
const RELOAD = 0x0c;
const ENABLE = 2;
const SECOND = 1_000_000_000n;
/** Linux takes half a second to be 2^9 ticks of 2^15 cycles: a little more than that, in both stages. */
const HALF = 512n * 32768n * 30n;

function setUp() {
  const clock = new FakeClock();
  const events: bigint[] = [];
  const device = new I6300esb(new FakeSlot(new FakeMemory(4096)), { clock, expired: () => events.push(clock.now()) });
  const { config } = device;
  config.seal();
  config.write(PCI.COMMAND, 2, PCI_COMMAND_MEMORY);
  const { region } = device.bars[0];
  const unlock = () => {
    region.write(RELOAD, 2, 0x80);
    region.write(RELOAD, 2, 0x86);
  };
  /** What the driver does when it is loaded, and when its file is opened. */
  const probe = () => {
    config.write(CONFIG, 2, 0x0003);
    config.write(LOCK, 1, 0);
    unlock();
    const cause = region.read(RELOAD, 2) & 0x200;
    region.write(RELOAD, 2, 0x300);
    return cause;
  };
  const heartbeat = (seconds: number) => {
    for (const timer of [TIMER1, TIMER2]) {
      unlock();
      region.write(timer, 4, seconds << 9);
    }
    ping();
  };
  const ping = () => {
    unlock();
    region.write(RELOAD, 2, 0x100);
  };
  const start = (seconds: number, more = 0) => {
    heartbeat(seconds);
    ping();
    config.write(LOCK, 1, ENABLE | more);
  };
  const advance = (ns: bigint) => {
    for (let left = ns; left > 0n; left -= SECOND / 10n) clock.advance(left < SECOND / 10n ? left : SECOND / 10n);
  };
  return { clock, events, device, config, region, unlock, probe, heartbeat, ping, start, advance };
}

describe('as Linux drives it', () => {
  test('it is found as what it is', () => {
    const { config, region } = setUp();
    expect(config.read(PCI.VENDOR_ID, 4)).toBe(0x25ab8086);
    expect(config.read(PCI.CLASS_PROG, 1) | (config.read(PCI.CLASS_DEVICE, 2) << 8)).toBe(0x088000);
    expect(region.size).toBe(16);
    config.write(PCI.BASE_ADDRESS_0, 4, 0xffffffff);
    expect(config.read(PCI.BASE_ADDRESS_0, 4)).toBe(0xfffffff0);
  });

  test('a guest that is fed lives; one that is not is acted on after both stages', () => {
    const { device, events, probe, start, ping, advance, clock } = setUp();
    expect(probe()).toBe(0);
    start(30);
    expect(device.running).toBe(true);
    for (let i = 0; i < 20; i++) {
      advance(20n * SECOND);
      ping();
    }
    expect(events).toEqual([]);
    const last = clock.now();
    advance(29n * SECOND);
    expect(events).toEqual([]);
    advance(3n * SECOND);
    expect(events.length).toBe(1);
    expect(events[0] - last).toBeGreaterThanOrEqual(60n * HALF);
    advance(1000n * SECOND);
    expect(events.length).toBe(1);
  });

  test('a ping in the second stage leads back to the first', () => {
    const { events, probe, start, ping, advance } = setUp();
    probe();
    start(10);
    advance(8n * SECOND);
    ping();
    advance(8n * SECOND);
    expect(events).toEqual([]);
    advance(5n * SECOND);
    expect(events.length).toBe(1);
  });

  test('after the reset that it caused, the driver sees so, until it clears that', () => {
    const { device, config, probe, start, advance } = setUp();
    probe();
    start(1);
    advance(3n * SECOND);
    device.reset();
    expect(device.running).toBe(false);
    config.write(PCI.COMMAND, 2, PCI_COMMAND_MEMORY);
    expect(probe()).toBe(0x200);
    expect(probe()).toBe(0);
  });

  test('it stops, unless it is locked', () => {
    const { device, config, events, probe, start, advance } = setUp();
    probe();
    start(1);
    config.write(LOCK, 1, 0);
    expect(device.running).toBe(false);
    advance(10n * SECOND);
    expect(events).toEqual([]);
    start(1, 1);
    config.write(LOCK, 1, 0);
    expect(config.read(LOCK, 1)).toBe(ENABLE | 1);
    expect(device.running).toBe(true);
    advance(10n * SECOND);
    expect(events.length).toBe(1);
    device.reset();
    expect(config.read(LOCK, 1)).toBe(0);
  });
});

describe('registers', () => {
  test('take one write after 0x80 and 0x86', () => {
    const { region, unlock } = setUp();
    const before = region.read(TIMER1, 4);
    region.write(TIMER1, 4, 5);
    region.write(RELOAD, 2, 0x86);
    region.write(TIMER1, 4, 5);
    region.write(RELOAD, 2, 0x80);
    region.write(TIMER1, 4, 5);
    region.write(RELOAD, 2, 0x80);
    region.write(RELOAD, 2, 0x80);
    region.write(STATUS, 4, 0);
    region.write(RELOAD, 2, 0x86);
    region.write(TIMER1, 4, 5);
    expect(region.read(TIMER1, 4)).toBe(before);
    unlock();
    region.write(TIMER1, 4, 5);
    expect(region.read(TIMER1, 4)).toBe(5);
    region.write(TIMER2, 4, 6);
    expect(region.read(TIMER2, 4)).toBe(before);
    region.write(RELOAD, 1, 0x80);
    region.write(RELOAD, 1, 0x86);
    region.write(TIMER2, 4, 0xffffffff);
    expect(region.read(TIMER2, 4)).toBe(0xfffff);
  });

  test('with the output off it runs out without a deed', () => {
    const { config, region, events, probe, start, advance } = setUp();
    probe();
    config.write(CONFIG, 2, 0x23);
    start(1);
    advance(10n * SECOND);
    expect(events).toEqual([]);
    expect(region.read(RELOAD, 2)).toBe(0x200);
  });

  test('running free, it starts again', () => {
    const { events, probe, start, advance } = setUp();
    probe();
    start(1, 4);
    advance(10n * SECOND);
    expect(events.length).toBeGreaterThan(5);
  });

  test('the first stage is seen in the interrupt status, when it is to interrupt', () => {
    const { config, region, unlock, probe, start, advance } = setUp();
    probe();
    start(10);
    advance(6n * SECOND);
    expect(region.read(STATUS, 4)).toBe(0);
    config.write(LOCK, 1, 0);
    config.write(CONFIG, 2, 0x0000);
    start(10);
    advance(6n * SECOND);
    expect(region.read(STATUS, 4)).toBe(1);
    region.write(STATUS, 4, 1);
    expect(region.read(STATUS, 4)).toBe(1);
    unlock();
    region.write(STATUS, 4, 1);
    expect(region.read(STATUS, 4)).toBe(0);
  });

  test('with the fast clock a tick is about a microsecond, and no stage shorter than a millisecond', () => {
    const { clock, config, events, unlock, region } = setUp();
    config.write(CONFIG, 2, 0x07);
    for (const timer of [TIMER1, TIMER2]) {
      unlock();
      region.write(timer, 4, 100_000);
    }
    config.write(LOCK, 1, ENABLE);
    clock.advance(96_000_000n);
    clock.advance(95_999_999n);
    expect(events).toEqual([]);
    clock.advance(1n);
    expect(events.length).toBe(1);
    unlock();
    region.write(TIMER1, 4, 0);
    unlock();
    region.write(TIMER2, 4, 0);
    config.write(LOCK, 1, 0);
    config.write(LOCK, 1, ENABLE | 4);
    for (let i = 0; i < 1000; i++) clock.advance(10_000n);
    expect(events.length).toBeLessThan(7);
  });
});

test('a snapshot has the time that is left', () => {
  const { clock, device, events, probe, start, advance } = setUp();
  probe();
  start(10);
  advance(8n * SECOND);
  const saved = JSON.parse(JSON.stringify(device.save()));
  advance(100n * SECOND);
  expect(events.length).toBe(1);
  device.restore(saved);
  expect(device.running).toBe(true);
  const from = clock.now();
  advance(100n * SECOND);
  expect(events.length).toBe(2);
  expect(events[1] - from).toBeGreaterThanOrEqual(2n * SECOND);
  expect(events[1] - from).toBeLessThan(3n * SECOND);
});
