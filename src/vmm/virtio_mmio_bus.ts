import type { DevicesReport } from '../client/machine_client.ts';
import type { GuestMemory } from '../devices/device.ts';
import type { VirtioDevice } from '../devices/virtio/device.ts';
import { MMIO_SIZE, VirtioMmio } from '../devices/virtio/mmio.ts';
import type { TransportOptions } from '../devices/virtio/transport.ts';
import { close, raw } from '../ffi/libc.ts';
import type { AcpiVirtioMmio } from './acpi/board.ts';
import type { Bus } from './bus.ts';
import type { KvmVm } from './kvm.ts';
import { newEventfd, type Reactor } from './reactor.ts';
import { reportVirtio } from './report_devices.ts';

/** Where QEMU's microvm has them, in the hole below the IOAPIC. */
const BASE = 0xfeb00000;
/** Pins of the IOAPIC behind the ISA interrupts. Devices beyond the eighth share them, which edges allow. */
const FIRST_GSI = 16;
const PINS = 8;
const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

export interface VirtioMmioBusOptions {
  readonly mmio: Bus;
  readonly memory: GuestMemory;
  readonly vm: KvmVm;
  readonly reactor: Reactor;
}

/** Virtio devices of a machine without PCI, side by side in memory; a guest finds them in the DSDT. */
export class VirtioMmioBus {
  readonly #options: VirtioMmioBusOptions;
  readonly #devices: VirtioMmio[] = [];
  /** An eventfd for each pin in use; KVM raises the pin when it is written. */
  readonly #pins = new Map<number, number>();
  readonly #doorbells: { fd: number; address: number; size: number; value: number }[] = [];

  constructor(options: VirtioMmioBusOptions) {
    this.#options = options;
  }

  addVirtio(device: VirtioDevice, transport: TransportOptions): void {
    const { mmio, memory } = this.#options;
    const number = this.#devices.length;
    const fd = this.#pin(gsiOf(number));
    const interrupt = () => void raw.write(fd, ONE, ONE.length);
    const made = new VirtioMmio(device, { ...transport, memory, interrupt });
    const base = BASE + number * MMIO_SIZE;
    mmio.insert(base, made);
    this.#devices.push(made);
    this.#connect(made, base);
  }

  #pin(gsi: number): number {
    let fd = this.#pins.get(gsi);
    if (fd === undefined) {
      fd = newEventfd();
      this.#pins.set(gsi, fd);
      this.#options.vm.irqfd(fd, gsi, true);
    }
    return fd;
  }

  #connect(device: VirtioMmio, base: number): void {
    const { vm, reactor } = this.#options;
    for (const { offset, size, value, rung } of device.doorbells) {
      const fd = newEventfd();
      try {
        vm.ioeventfd(fd, base + offset, size, 'mmio', true, value);
      } catch {
        // KVM has a limit on these: the rest comes as ordinary exits.
        close(fd);
        break;
      }
      reactor.addEventfd(fd, rung);
      this.#doorbells.push({ fd, address: base + offset, size, value });
    }
  }

  reset(): void {
    for (const device of this.#devices) device.reset();
  }

  close(): void {
    const { vm, reactor } = this.#options;
    for (const { fd, address, size, value } of this.#doorbells.splice(0)) {
      vm.ioeventfd(fd, address, size, 'mmio', false, value);
      reactor.remove(fd);
      close(fd);
    }
    for (const [gsi, fd] of this.#pins) {
      vm.irqfd(fd, gsi, false);
      close(fd);
    }
    this.#pins.clear();
  }

  report(): DevicesReport['mmio'] {
    return this.#devices.map((device, number) => ({
      ...reportVirtio(device.state),
      ...{ base: BASE + number * MMIO_SIZE, gsi: gsiOf(number) },
    }));
  }

  /** What the tables say. */
  acpi(): AcpiVirtioMmio[] {
    return this.#devices.map((_, number) => ({
      base: BASE + number * MMIO_SIZE,
      size: MMIO_SIZE,
      gsi: gsiOf(number),
      shared: this.#devices.length > PINS,
    }));
  }
}

const gsiOf = (number: number) => FIRST_GSI + (number % PINS);
