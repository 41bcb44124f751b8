import { AcpiCpuHotplug } from '../../../src/devices/acpi_cpu_hotplug.ts';
import { AcpiMemoryHotplug } from '../../../src/devices/acpi_memory_hotplug.ts';
import { AcpiNvdimm } from '../../../src/devices/acpi_nvdimm.ts';
import { AcpiPciHotplug } from '../../../src/devices/acpi_pci_hotplug.ts';
import { CmosRtc } from '../../../src/devices/cmos_rtc.ts';
import { FwCfg } from '../../../src/devices/fw_cfg.ts';
import { Hpet } from '../../../src/devices/hpet.ts';
import { I6300esb } from '../../../src/devices/i6300esb.ts';
import { I8042 } from '../../../src/devices/i8042.ts';
import { Ich9Pm } from '../../../src/devices/ich9_pm.ts';
import { NvdimmHints } from '../../../src/devices/nvdimm_hints.ts';
import type { PciFunction, PciSlot } from '../../../src/devices/pci/function.ts';
import { I440fx, Piix3Isa, Piix4Function } from '../../../src/devices/pci/i440fx.ts';
import { RootPort } from '../../../src/devices/pci/root_port.ts';
import { DownstreamPort, UpstreamPort } from '../../../src/devices/pci/switch.ts';
import { Piix4Pm } from '../../../src/devices/piix4_pm.ts';
import { DebugPort, IsaDebugExit, Pvpanic, ResetControl } from '../../../src/devices/small_ports.ts';
import { Uart16550 } from '../../../src/devices/uart16550.ts';
import { VirtioBalloon } from '../../../src/devices/virtio/balloon.ts';
import { VirtioBlk } from '../../../src/devices/virtio/blk.ts';
import { VirtioConsole } from '../../../src/devices/virtio/console.ts';
import type { VirtioDevice } from '../../../src/devices/virtio/device.ts';
import { VirtioMem } from '../../../src/devices/virtio/mem.ts';
import { VirtioNet } from '../../../src/devices/virtio/net.ts';
import { VirtioPci } from '../../../src/devices/virtio/pci.ts';
import { VirtioPmem } from '../../../src/devices/virtio/pmem.ts';
import { VirtioRng } from '../../../src/devices/virtio/rng.ts';
import { FakeChannel, FakeClock, FakeLine, FakeMemory } from '../../support/board.ts';
import { deviceContract, type Subject } from '../../support/device_contract.ts';
import { FakeSlot, regionsOf } from '../../support/pci_slot.ts';
import { MemoryDisk, QuietNet } from '../../support/virtio_backends.ts';

const MIB = 2 ** 20;

deviceContract('16550A', () => {
  const clock = new FakeClock();
  const channel = new FakeChannel();
  const device = new Uart16550({ name: 'com1', irq: new FakeLine(), channel, clock });
  return {
    device,
    regions: [device],
    clock,
    disturb: (pick) => {
      if (channel.input.length < 100) channel.input.push(pick(256));
      channel.onReadable?.();
      channel.written.length = 0;
      clock.advance(BigInt(pick(10_000_000)));
    },
  };
});

deviceContract('MC146818', () => {
  const clock = new FakeClock();
  const device = new CmosRtc({ clock, irq: new FakeLine(), lowMemory: 512 * MIB, highMemory: 0, cpus: 2 });
  return {
    device,
    regions: [device],
    disturb: (pick) => clock.advance(BigInt(pick(2_000_000_000))),
    clock,
    // The battery holds memory and clock.
    keeps: Object.keys(device.save()),
  };
});

deviceContract('fw_cfg', () => {
  const device = new FwCfg({ memory: new FakeMemory(MIB) });
  return { device, regions: [device] };
});

deviceContract('hpet', () => {
  const clock = new FakeClock();
  const line = new FakeLine();
  const device = new Hpet({ clock, routes: 0xff0104, line: () => line, legacy: () => {} });
  return { device, regions: [device], disturb: (pick) => clock.advance(BigInt(pick(1_000_000))) };
});

deviceContract('i8042', () => {
  const device = new I8042({ irq: new FakeLine(), reset: () => {} });
  return { device, regions: [device.data, device.command] };
});

deviceContract('PIIX4 power management', () => {
  const clock = new FakeClock();
  const device = new Piix4Pm({ clock, sci: new FakeLine(), powerOff: () => {} });
  const disturb = (pick: (limit: number) => number) => {
    clock.advance(BigInt(pick(1_000_000)));
    device.raiseGpe(pick(16));
    if (pick(4) === 0) device.pressPowerButton();
  };
  return { device, regions: [device.ports, device.events], clock, disturb };
});

deviceContract('PCI hot-plug by ACPI', () => {
  const device = new AcpiPciHotplug({ notify: () => {}, noticed: () => {}, eject: () => {}, settled: () => {} });
  const disturb = (pick: (limit: number) => number) => {
    device.setRemovable(pick(32), pick(2) === 0);
    [device.plugged, device.requestRemoval, device.gone][pick(3)].call(device, pick(32));
  };
  return { device, regions: [device], disturb };
});

const QUIET = { notify: () => {}, noticed: () => {}, ost: () => {}, eject: () => {} };

deviceContract('CPU hot-plug by ACPI', () => {
  const device = new AcpiCpuHotplug({ count: 5, apicId: (cpu) => 300 + cpu, present: (cpu) => cpu < 3, ...QUIET });
  const disturb = (pick: (limit: number) => number) =>
    [device.plugged, device.requestRemoval, device.gone][pick(3)].call(device, pick(5));
  // As in QEMU.
  return { device, regions: [device], disturb, keeps: ['selector'] };
});

deviceContract('DIMM hot-plug by ACPI', () => {
  const dimm = (slot: number) => (slot < 3 ? { address: 2 ** 40 + 2 ** 31, size: 3 * 2 ** 32, node: 2 } : undefined);
  const device = new AcpiMemoryHotplug({ slots: 4, dimm, ...QUIET });
  const disturb = (pick: (limit: number) => number) =>
    [device.plugged, device.requestRemoval, device.gone][pick(3)].call(device, pick(4));
  return { device, regions: [device], disturb };
});

deviceContract('_DSM of NVDIMMs', () => {
  const device = new AcpiNvdimm({
    ...{ memory: new FakeMemory(MIB), fit: () => new Uint8Array(200), nvdimm: () => undefined, hold: () => () => {} },
    ...{ notify: () => {}, fitRead: () => {}, fault: () => {} },
  });
  return { device, regions: [device], disturb: (pick) => device.fitChanged(pick(2) === 0) };
});

deviceContract('flush hints of NVDIMMs', () => {
  const device = new NvdimmHints({ slots: 4, flush: (_, done) => done(), hold: () => () => {} });
  return { device, regions: [device] };
});

for (const [name, make] of [
  ['i440FX', (slot: PciSlot) => new I440fx(slot)],
  ['PIIX3', (slot: PciSlot) => new Piix3Isa(slot)],
  ['PIIX4', (slot: PciSlot) => new Piix4Function(slot, 0x600, 9)],
] as const) {
  deviceContract(name, () => {
    const device: PciFunction = make(new FakeSlot(new FakeMemory(MIB)));
    device.config.seal();
    return { device, regions: regionsOf(device) };
  });
}

deviceContract('ICH9 power management', () => {
  const clock = new FakeClock();
  const device = new Ich9Pm({ clock, sci: new FakeLine(), powerOff: () => {} });
  return { device, regions: [device], clock, disturb: (pick) => clock.advance(BigInt(pick(5_000_000_000))) };
});

for (const make of [
  () => new ResetControl(() => {}),
  () => new Pvpanic(() => {}),
  () => new IsaDebugExit(() => {}),
  () => new DebugPort(),
]) {
  deviceContract(make().name, () => {
    const device = make();
    return { device, regions: [device] };
  });
}

deviceContract('root port', () => {
  const device = new RootPort('port1', new FakeSlot(new FakeMemory(MIB)), { slotNumber: 1, serial: 1n });
  device.config.seal();
  return { device, regions: regionsOf(device) };
});

deviceContract('upstream port of a switch', () => {
  const device = new UpstreamPort('sw0', new FakeSlot(new FakeMemory(MIB)));
  device.config.seal();
  return { device, regions: regionsOf(device) };
});

deviceContract('downstream port of a switch', () => {
  const device = new DownstreamPort('sw0.0', new FakeSlot(new FakeMemory(MIB)), 2, 0);
  device.config.seal();
  return { device, regions: regionsOf(device) };
});

deviceContract('i6300esb', () => {
  const clock = new FakeClock();
  const device = new I6300esb(new FakeSlot(new FakeMemory(MIB)), { clock, expired: () => {} });
  device.config.seal();
  return {
    device,
    regions: regionsOf(device),
    clock,
    disturb: (pick) => clock.advance(BigInt(pick(2_000_000_000)) * 10n),
    // That it ran out is to be seen after the reset that it caused.
    keeps: ['timedOut'],
  };
});

const onPci = (make: () => VirtioDevice, packed: boolean) => (): Subject => {
  const device = new VirtioPci(make(), new FakeSlot(new FakeMemory(MIB)), { packed });
  device.config.seal();
  return { device, regions: regionsOf(device) };
};

for (const packed of [false, true]) {
  const rings = packed ? 'packed' : 'split';
  deviceContract(
    `virtio-blk, ${rings}`,
    onPci(() => new VirtioBlk({ name: 'vda', backend: new MemoryDisk(MIB), queues: 2 }), packed),
  );
  deviceContract(
    `virtio-net, ${rings}`,
    onPci(
      () =>
        new VirtioNet({
          name: 'net0',
          backends: [new QuietNet(), new QuietNet()],
          mac: Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56),
        }),
      packed,
    ),
  );
  deviceContract(
    `virtio-rng, ${rings}`,
    onPci(() => new VirtioRng('rng', (into) => into.fill(7)), packed),
  );
  deviceContract(
    `virtio-balloon, ${rings}`,
    onPci(() => new VirtioBalloon({ name: 'balloon', backend: { discard: () => {} }, deflateOnOom: true }), packed),
  );
  deviceContract(
    `virtio-console, ${rings}`,
    onPci(
      () =>
        new VirtioConsole({
          name: 'console',
          ports: [{ channel: new FakeChannel() }, { channel: new FakeChannel(), name: 'org.example.agent' }],
        }),
      packed,
    ),
  );
  deviceContract(
    `virtio-mem, ${rings}`,
    onPci(() => {
      const backend = { plug: () => true, unplug: () => {}, readable: () => {} };
      const region = { address: 2 ** 32, size: 64 * MIB, block: 2 * MIB };
      return new VirtioMem({ name: 'vm0', backend, ...region, node: 0, requested: 8 * MIB });
    }, packed),
  );
  deviceContract(
    `virtio-pmem, ${rings}`,
    onPci(
      () => new VirtioPmem({ name: 'pmem', backend: { flush: (done) => done(0) }, start: 2 ** 32, size: MIB }),
      packed,
    ),
  );
}
