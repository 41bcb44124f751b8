import { describe, expect, test } from 'vitest';
import { BRIDGE } from '../../../src/devices/pci/bridge.ts';
import { PCI, PCI_COMMAND_INTX_DISABLE, PCI_COMMAND_MEMORY } from '../../../src/devices/pci/config_space.ts';
import { addExpress, EXP, EXP_TYPE_ENDPOINT } from '../../../src/devices/pci/express.ts';
import { PciFunction, type PciSlot } from '../../../src/devices/pci/function.ts';
import { Msix } from '../../../src/devices/pci/msix.ts';
import { RootPort } from '../../../src/devices/pci/root_port.ts';
import { Bus } from '../../../src/vmm/bus.ts';
import { assignResources, OutOfAddresses } from '../../../src/vmm/pci/assign.ts';
import { ConfigPages, readConfig } from '../../../src/vmm/pci/config_pages.ts';
import { PciRoot } from '../../../src/vmm/pci/root.ts';
import { random } from '../../support/random.ts';

const APERTURES = {
  io: { base: 0xc000, limit: 0x10000 },
  memory: { base: 0xc0000000, limit: 0xfec00000 },
  memory64: { base: 0x100000000, limit: 0x1100000000 },
};
const COMMAND_ALL = 0x7;

function machine() {
  const pio = new Bus('pio');
  const mmio = new Bus('mmio');
  const pages = new ConfigPages();
  const messages: { address: number; data: number }[] = [];
  const faults: string[] = [];
  const intx = new Map<string, boolean>();
  const doorbells: string[] = [];
  const root = new PciRoot({
    pio,
    mmio,
    pages,
    memory: { read: () => true, write: () => true, slice: () => undefined },
    msi: { send: (address, data) => messages.push({ address, data }) },
    intx: (device, pin) => ({ set: (level) => void intx.set(`${device}.${pin}`, level) }),
    connectDoorbells: (_, base) => {
      doorbells.push(`on ${base.toString(16)}`);
      return () => doorbells.push(`off ${base.toString(16)}`);
    },
    mapMemory: () => () => {},
    fault: (text) => faults.push(text),
  });
  return { pio, mmio, pages, root, messages, faults, intx, doorbells };
}

/** A function with 4 KiB of registers that say who they are, an MSI-X table and 32 ports. */
class Probe extends PciFunction {
  readonly msix: Msix;

  constructor(name: string, slot: PciSlot, size = 0x1000) {
    super(name, { vendor: 0x1234, device: 0x5678, classCode: 0xff0000, pin: 1 }, slot);
    const region = (of: string, bytes: number) => ({
      name: `${name}-${of}`,
      size: bytes,
      read: () => bytes,
      write: () => {},
    });
    this.addBar({
      index: 0,
      kind: 'memory64',
      prefetchable: true,
      size,
      region: region('registers', size),
      doorbells: [{ offset: 0, size: 2, rung: () => {} }],
    });
    this.msix = new Msix(this, slot.msi, 3, 2);
    this.addBar({ index: 2, kind: 'memory32', prefetchable: false, size: this.msix.size, region: this.msix });
    this.addBar({ index: 3, kind: 'io', prefetchable: false, size: 32, region: region('ports', 32) });
    addExpress(this.config, { type: EXP_TYPE_ENDPOINT, functionLevelReset: () => this.reset() });
    this.config.seal();
  }
}

const rootPort = (number: number) => (slot: PciSlot) => {
  const port = new RootPort(`port${number}`, slot, { slotNumber: number, serial: 1n });
  port.config.seal();
  return port;
};

describe('configuration space', () => {
  test('a vCPU thread reads what the machine thread wrote, and all ones where nobody is', () => {
    const { root, pages } = machine();
    root.place(root.rootBus, 3 << 3, (slot) => new Probe('probe', slot));
    const words = new Int32Array(pages.buffer);
    expect(readConfig(words, 3 << 3, PCI.VENDOR_ID, 4)).toBe(0x56781234);
    expect(readConfig(words, 3 << 3, PCI.DEVICE_ID, 2)).toBe(0x5678);
    expect(readConfig(words, 3 << 3, PCI.CLASS_DEVICE + 1, 1)).toBe(0xff);
    expect(readConfig(words, 4 << 3, PCI.VENDOR_ID, 4)).toBe(0xffffffff);
    expect(readConfig(words, 4 << 3, PCI.VENDOR_ID, 1)).toBe(0xff);
  });

  test('a BAR that is sized answers its size and keeps its type', () => {
    const { root } = machine();
    const probe = root.place(root.rootBus, 8, (slot) => new Probe('probe', slot));
    probe.config.write(0x10, 4, 0xffffffff);
    probe.config.write(0x14, 4, 0xffffffff);
    expect(probe.config.read(0x10, 4)).toBe(0xfffff00c);
    expect(probe.config.read(0x14, 4)).toBe(0xffffffff);
    probe.config.write(0x1c, 4, 0xffffffff);
    expect(probe.config.read(0x1c, 4)).toBe(0xffffffe1);
    probe.config.write(PCI.VENDOR_ID, 4, 0);
    expect(probe.config.read(PCI.VENDOR_ID, 4)).toBe(0x56781234);
  });

  test('a function level reset takes the registers back and reads as zero', () => {
    const { root } = machine();
    const probe = root.place(root.rootBus, 8, (slot) => new Probe('probe', slot));
    probe.config.write(PCI.COMMAND, 2, COMMAND_ALL);
    // The Express capability stands behind MSI-X's twelve bytes.
    const control = 0x40 + 12 + EXP.DEVCTL;
    probe.config.write(control, 2, 0x8000);
    expect(probe.command).toBe(0);
    expect(probe.config.read(control, 2) & 0x8000).toBe(0);
  });
});

describe('decoding', () => {
  test('a BAR answers at its address while decoding is on, and doorbells follow it', () => {
    const { root, mmio, pio, doorbells } = machine();
    const probe = root.place(root.rootBus, 8, (slot) => new Probe('probe', slot));
    assignResources(root, APERTURES);
    expect(mmio.read(0x100000000, 4)).toBe(0x1000);
    expect(pio.read(0xc000, 1)).toBe(32);
    probe.config.write(0x14, 4, 2);
    expect(mmio.read(0x100000000, 4)).toBe(0xffffffff);
    expect(mmio.read(0x200000000, 4)).toBe(0x1000);
    probe.config.write(PCI.COMMAND, 2, 0);
    expect(mmio.read(0x200000000, 4)).toBe(0xffffffff);
    expect(doorbells).toEqual(['on 100000000', 'off 100000000', 'on 200000000', 'off 200000000']);
  });

  test('behind a port only what its windows pass is decoded', () => {
    const { root, mmio } = machine();
    const port = root.place(root.rootBus, 0x1c << 3, rootPort(1));
    root.place(root.busBehind(port), 0, (slot) => new Probe('probe', slot));
    port.occupy();
    assignResources(root, APERTURES);
    const [place] = [...root.walk()].filter(({ function: each }) => each.name === 'probe');
    expect(place.bus).toBe(1);
    expect(root.readConfig(0x100, 0, 4)).toBe(0x56781234);
    const base = place.function.barAddress(place.function.bars[0]) as number;
    expect(mmio.read(base, 4)).toBe(0x1000);
    port.config.write(BRIDGE.PREFETCH_LIMIT_UPPER, 4, 0);
    expect(mmio.read(base, 4)).toBe(0xffffffff);
    port.config.write(PCI.COMMAND, 2, 0);
    const registers = place.function.barAddress(place.function.bars[1]) as number;
    expect(mmio.read(registers, 4)).toBe(0xffffffff);
    port.config.write(PCI.COMMAND, 2, PCI_COMMAND_MEMORY);
    expect(mmio.read(registers, 4)).not.toBe(0xffffffff);
  });

  test('every BAR has a place of its own, aligned to its size, inside the windows above it', () => {
    const { root } = machine();
    for (let device = 1; device < 9; device++) {
      root.place(root.rootBus, device << 3, (slot) => new Probe(`probe${device}`, slot, 0x1000 << device));
    }
    const port = root.place(root.rootBus, 0x1c << 3, rootPort(1));
    root.place(root.busBehind(port), 0, (slot) => new Probe('behind', slot, 2 ** 32));
    port.occupy();
    assignResources(root, APERTURES);
    const taken: { space: string; base: number; end: number }[] = [];
    for (const { function: each, on } of root.walk()) {
      for (const bar of each.bars) {
        const base = each.barAddress(bar) as number;
        expect(base % bar.size).toBe(0);
        if (on.bridge) expect(on.bridge.passes(bar.kind === 'io' ? 'io' : 'memory', base, bar.size)).toBe(true);
        taken.push({ space: bar.kind === 'io' ? 'io' : 'memory', base, end: base + bar.size });
      }
    }
    for (const a of taken)
      for (const b of taken) if (a !== b && a.space === b.space) expect(a.base < b.end && b.base < a.end).toBe(false);
  });

  test('a BAR on top of another is a fault of the guest, and works once it is moved', () => {
    const { root, mmio, faults } = machine();
    root.place(root.rootBus, 8, (slot) => new Probe('first', slot));
    const second = root.place(root.rootBus, 16, (slot) => new Probe('second', slot, 0x2000));
    assignResources(root, APERTURES);
    second.config.write(0x10, 4, 0x2000);
    second.config.write(0x14, 4, 1);
    expect(faults.length).toBeGreaterThan(0);
    second.config.write(0x14, 4, 7);
    expect(mmio.read(0x700002000, 4)).toBe(0x2000);
  });

  test('what does not fit is named', () => {
    const { root } = machine();
    root.place(root.rootBus, 8, (slot) => new Probe('huge', slot, 2 ** 40));
    expect(() => assignResources(root, APERTURES)).toThrow(OutOfAddresses);
  });

  test('a function that is taken out answers no more, and its place is free', () => {
    const { root, mmio, intx } = machine();
    const probe = root.place(root.rootBus, 8, (slot) => new Probe('probe', slot));
    assignResources(root, APERTURES);
    probe.setIntx(true);
    expect(intx.get('1.1')).toBe(true);
    root.remove(probe);
    expect(intx.get('1.1')).toBe(false);
    expect(mmio.read(0x100000000, 4)).toBe(0xffffffff);
    expect(root.readConfig(8, 0, 4)).toBe(0xffffffff);
    root.place(root.rootBus, 8, (slot) => new Probe('again', slot));
    expect(root.readConfig(8, 0, 4)).toBe(0x56781234);
  });
});

describe('interrupts', () => {
  test('pins behind a port turn by the device number', () => {
    const { root, intx } = machine();
    const port = root.place(root.rootBus, 2 << 3, rootPort(1));
    const probe = root.place(root.busBehind(port), 3 << 3, (slot) => new Probe('probe', slot));
    probe.setIntx(true);
    // INTA of device 3 arrives as INTD of the port's device.
    expect(intx.get('2.4')).toBe(true);
    probe.config.write(PCI.COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    expect(intx.get('2.4')).toBe(false);
  });

  test('a masked vector stays pending until it is unmasked', () => {
    const { root, messages } = machine();
    const { msix, config } = root.place(root.rootBus, 8, (slot) => new Probe('probe', slot));
    const control = 0x42;
    config.write(PCI.COMMAND, 2, COMMAND_ALL);
    config.write(control, 2, 0x8000);
    msix.write(16, 4, 0xfee00000);
    msix.write(24, 4, 0x4041);
    msix.notify(1);
    expect(messages).toEqual([]);
    expect(msix.read(0x800, 4)).toBe(2);
    msix.write(28, 4, 0);
    expect(messages).toEqual([{ address: 0xfee00000, data: 0x4041 }]);
    expect(msix.read(0x800, 4)).toBe(0);
    config.write(control, 2, 0xc000);
    msix.notify(1);
    expect(messages.length).toBe(1);
    config.write(control, 2, 0x8000);
    expect(messages.length).toBe(2);
    config.write(PCI.COMMAND, 2, 0);
    msix.notify(1);
    msix.notify(77);
    expect(messages.length).toBe(2);
  });
});

describe('a hot-plug slot', () => {
  /** Offset of the Express capability: it is a port's first. */
  const at = 0x40;

  test('tells of a device that is put in and of one that is to go, and of its commands', () => {
    const { root, messages } = machine();
    const port = root.place(root.rootBus, 0x1c << 3, rootPort(5));
    const { config } = port;
    expect(config.read(at + EXP.SLTCAP, 4) >>> 19).toBe(5);
    config.write(PCI.COMMAND, 2, COMMAND_ALL);
    config.write(at + EXP.SIZE + 2, 2, 0x8000);
    port.msix.write(12, 4, 0);
    config.write(at + EXP.SLTCTL, 2, 0x13f9);
    messages.length = 0;
    port.insert();
    expect(config.read(at + EXP.SLTSTA, 2) & 0x148).toBe(0x148);
    expect(config.read(at + EXP.LNKSTA, 2) & 0x2000).toBe(0x2000);
    expect(messages.length).toBe(1);
    config.write(at + EXP.SLTSTA, 2, 0x11f);
    expect(config.read(at + EXP.SLTSTA, 2)).toBe(0x40);
    port.pressAttentionButton();
    expect(config.read(at + EXP.SLTSTA, 2)).toBe(0x41);
    config.write(at + EXP.SLTCTL, 2, 0x17f9);
    expect(port.slotState).toMatchObject({ occupied: true, powered: false, powerIndicator: 'off', linkActive: false });
    port.remove();
    expect(config.read(at + EXP.SLTSTA, 2) & 0x40).toBe(0);
  });

  test('an empty slot has no link, one that was filled before the start has no event', () => {
    const { root } = machine();
    const port = root.place(root.rootBus, 0x1c << 3, rootPort(1));
    expect(port.linkActive).toBe(false);
    port.occupy();
    expect(port.config.read(at + EXP.SLTSTA, 2)).toBe(0x40);
    expect(port.linkActive).toBe(true);
    port.reset();
    expect(port.linkActive).toBe(true);
  });
});

test('no sequence of configuration writes throws', () => {
  const { root, pages } = machine();
  const next = random(20_24);
  const ports = [1, 2].map((number) => root.place(root.rootBus, (0x1c << 3) | number, rootPort(number)));
  root.place(root.busBehind(ports[0]), 0, (slot) => new Probe('behind', slot));
  root.place(root.rootBus, 8, (slot) => new Probe('probe', slot));
  const rounds = 20_000 * Number(process.env.NEMU_FUZZ_SCALE ?? 1);
  for (let i = 0; i < rounds; i++) {
    const places = [...root.walk()].map(({ bus, devfn }) => (bus << 8) | devfn);
    const size = [1, 2, 4][next(3)];
    const offset = next(next(2) ? 0x140 : 0x1000) & ~(size - 1);
    const value = next(2) ? next(2 ** 32) : [0, 0xffffffff, 1 << next(32)][next(3)];
    root.writeConfig(places[next(places.length)], offset, size, value >>> 0);
    if (i % 100 === 0) for (const place of places) pages.read(place, next(0x400) * 4, 4);
    if (i % 1000 === 0) root.reset();
  }
});
