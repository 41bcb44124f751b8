/** The parts that a PC without PCI Express has: hot-plug registers, power management, interrupt routing. */
import { describe, expect, test } from 'vitest';
import { AcpiPciHotplug } from '../../../src/devices/acpi_pci_hotplug.ts';
import { Piix3Isa, Piix4Function } from '../../../src/devices/pci/i440fx.ts';
import { Piix4Pm } from '../../../src/devices/piix4_pm.ts';
import { PirqRouter } from '../../../src/vmm/pci/pirq.ts';
import { FakeClock, FakeLine, FakeMemory } from '../../support/board.ts';
import { FakeSlot } from '../../support/pci_slot.ts';

const [UP, DOWN, EJECT, REMOVABLE, BUS_SELECT] = [0x00, 0x04, 0x08, 0x0c, 0x10];

function hotplug() {
  const told = { notified: 0, ejected: [] as number[], settled: [] as number[] };
  const device = new AcpiPciHotplug({
    noticed: () => {},
    notify: () => {
      told.notified++;
    },
    eject: (slot) => told.ejected.push(slot),
    settled: (slot) => told.settled.push(slot),
  });
  return {
    device,
    told,
    read: (at: number) => device.read(at, 4),
    write: (at: number, v: number) => device.write(at, 4, v),
  };
}

describe('hot-plug registers', () => {
  test('what has come is told once, with a bit for its slot', () => {
    const { device, told, read } = hotplug();
    device.plugged(3);
    device.plugged(31);
    expect([told.notified, read(UP), read(UP), read(DOWN)]).toEqual([2, 0x80000008, 0, 0]);
  });

  test('what is to go is asked for until the guest ejects it', () => {
    const { device, told, read, write } = hotplug();
    device.setRemovable(4, true);
    device.requestRemoval(4);
    expect([read(DOWN), read(DOWN), read(REMOVABLE), read(EJECT)]).toEqual([0x10, 0x10, 0x10, 0]);
    write(EJECT, 0x18);
    // Nothing removable is in slot 3.
    expect([told.ejected, read(DOWN)]).toEqual([[4], 0]);
  });

  test('what was torn out is asked for too, and what comes into its slot waits until the guest has let go', () => {
    const { device, told, read, write } = hotplug();
    device.setRemovable(4, true);
    device.gone(4);
    expect([told.notified, read(DOWN), device.isTorn(4)]).toEqual([1, 0x10, true]);
    device.setRemovable(4, true);
    device.plugged(4);
    expect([told.notified, read(UP), device.isLate(4), device.isLate(5)]).toEqual([1, 0, true, false]);
    write(EJECT, 0x10);
    expect([told.settled, told.ejected, read(DOWN), device.isTorn(4)]).toEqual([[4], [], 0, false]);
    expect([told.notified, read(UP)]).toEqual([2, 0x10]);
    // What it lets go of, and what it has not heard of, it need not be asked for.
    write(EJECT, 0x10);
    device.gone(4);
    device.setRemovable(5, true);
    device.plugged(5);
    device.gone(5);
    expect([told.ejected, read(DOWN), device.isTorn(4), device.isTorn(5)]).toEqual([[4], 0, false, false]);
    // What was never there cannot be torn out.
    device.gone(6);
    expect([read(DOWN), device.isTorn(6)]).toEqual([0, false]);
    // The next guest has none of it.
    device.setRemovable(6, true);
    device.gone(6);
    device.reset();
    expect([told.settled, read(DOWN), device.isTorn(6)]).toEqual([[4, 6], 0, false]);
  });

  test('other buses have nothing', () => {
    const { device, told, read, write } = hotplug();
    device.setRemovable(4, true);
    device.plugged(4);
    write(BUS_SELECT, 1);
    write(EJECT, 0x10);
    expect([read(UP), read(REMOVABLE), told.ejected]).toEqual([0, 0, []]);
    write(BUS_SELECT, 0);
    expect(read(UP)).toBe(0x10);
  });
});

describe('PIIX4', () => {
  const make = () => {
    const sci = new FakeLine();
    const off = { count: 0 };
    const pm = new Piix4Pm({
      clock: new FakeClock(),
      sci,
      powerOff: () => {
        off.count++;
      },
    });
    return { pm, sci, off };
  };

  test('an event raises the SCI while it is enabled and set, beside those of PM1', () => {
    const { pm, sci } = make();
    pm.raiseGpe(1);
    expect(sci.level).toBe(false);
    pm.events.write(2, 2, 0x0002);
    expect([sci.level, pm.events.read(0, 4)]).toEqual([true, 0x00020002]);
    pm.ports.write(2, 2, 0x0100);
    pm.pressPowerButton();
    pm.events.write(0, 2, 0x0002);
    expect(sci.level).toBe(true);
    pm.ports.write(0, 2, 0x0100);
    expect(sci.level).toBe(false);
  });

  test('soft off; ports behind PM1 and the timer are nothing', () => {
    const { pm, off } = make();
    pm.ports.write(4, 2, 0x2000);
    expect(off.count).toBe(1);
    pm.ports.write(0x20, 4, 0xffffffff);
    expect([pm.ports.size, pm.ports.read(0x20, 4)]).toEqual([0x40, 0]);
  });

  test('its ports move and go away by configuration', () => {
    const pm = new Piix4Function(new FakeSlot(new FakeMemory(4096)), 0x600, 9);
    expect([pm.config.read(0, 4), pm.pmBase]).toEqual([0x71138086, 0x600]);
    pm.config.write(0x40, 4, 0xb07f);
    expect(pm.pmBase).toBe(0xb040);
    pm.config.write(0x80, 1, 0);
    expect(pm.pmBase).toBeUndefined();
  });
});

test('a PIIX3 says where PIRQs go', () => {
  const isa = new Piix3Isa(new FakeSlot(new FakeMemory(4096)));
  expect([isa.config.read(0, 4), isa.pirqRoute(0)]).toEqual([0x70008086, undefined]);
  isa.routePirq(2, 11);
  isa.config.write(0x60, 4, 0x800b800a);
  expect([0, 1, 2, 3].map((pirq) => isa.pirqRoute(pirq))).toEqual([10, undefined, 11, undefined]);
});

describe('PIRQs', () => {
  const make = (own?: (pirq: number) => number) => {
    const levels = new Map<number, boolean>();
    return { levels, router: new PirqRouter(4, (gsi, level) => void levels.set(gsi, level), own) };
  };

  test('lines come together, in one PIRQ and in one ISA interrupt', () => {
    const { levels, router } = make();
    for (const pirq of [0, 1]) router.route(pirq, 10);
    const [a, b, c] = [router.line(0), router.line(0), router.line(1)];
    for (const line of [a, b, c]) line.set(true);
    const heights = [a, b, c].map((line) => {
      line.set(false);
      line.set(false);
      return levels.get(10);
    });
    expect(heights).toEqual([true, true, false]);
  });

  test('a route that changes takes the level along', () => {
    const { levels, router } = make((pirq) => 16 + pirq);
    router.route(3, 10);
    router.line(3).set(true);
    expect([...levels].sort()).toEqual([
      [10, true],
      [19, true],
    ]);
    router.route(3, 11);
    expect([levels.get(10), levels.get(11)]).toEqual([false, true]);
    router.route(3, undefined);
    expect([levels.get(11), levels.get(19)]).toEqual([false, true]);
  });
});
