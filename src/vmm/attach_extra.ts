import { type DeviceDescription, streams } from '../client/device_schema.ts';
import { NemuError } from '../client/errors.ts';
import type { BalloonReport } from '../client/machine_client.ts';
import type { ByteChannel, Clock } from '../devices/device.ts';
import { I6300esb } from '../devices/i6300esb.ts';
import type { PciFunction, PciSlot } from '../devices/pci/function.ts';
import { VirtioBalloon } from '../devices/virtio/balloon.ts';
import { VirtioConsole } from '../devices/virtio/console.ts';
import type { VirtioDevice } from '../devices/virtio/device.ts';

export interface ExtraOptions {
  readonly devices: readonly DeviceDescription[];
  readonly addVirtio: (device: VirtioDevice) => void;
  /** Puts a function that is no virtio device on the bus; undefined on a machine without PCI. */
  readonly addPci: (<F extends PciFunction>(make: (slot: PciSlot) => F) => F) | undefined;
  /** The machine's end of a stream, by its name. */
  readonly channel: (name: string, flow: 'drop' | 'wait') => ByteChannel;
  readonly clock: Clock;
  /** Gives the host memory back that the guest does not use. */
  readonly discard: (gpa: number, length: number) => void;
  /** The watchdog has run out. */
  readonly watchdog: (action: 'reset' | 'poweroff' | 'pause' | 'nmi' | 'none') => void;
}

/** The devices of `--device`. */
export interface Extra {
  /** @throws NemuError BALLOON for a machine without one, or a size that it cannot have. */
  balloon(target: number | undefined): BalloonReport;
  /** @returns whether the console has a size that the guest can be told. */
  resizeConsole(name: string, rows: number, columns: number): boolean;
}

/** @throws NemuError DEVICE for one that the machine has no place for. */
export function attachExtra(options: ExtraOptions): Extra {
  const { devices } = options;
  let balloon: VirtioBalloon | undefined;
  for (const device of devices) {
    if (device.type === 'virtio-balloon') {
      balloon = new VirtioBalloon({
        name: 'balloon',
        backend: { discard: options.discard },
        deflateOnOom: device.deflateOnOom,
        reporting: device.reporting,
      });
      options.addVirtio(balloon);
    } else if (device.type === 'i6300esb') {
      if (!options.addPci) {
        throw new NemuError('DEVICE', 'The watchdog i6300esb is a PCI device, and this machine has no PCI.', {
          hint: 'Use --machine q35 or pc.',
        });
      }
      const { action } = device;
      options.addPci((slot) => new I6300esb(slot, { clock: options.clock, expired: () => options.watchdog(action) }));
    }
  }
  const ports = streams(devices);
  let serial: VirtioConsole | undefined;
  if (ports.length > 0) {
    serial = new VirtioConsole({
      name: 'serial',
      ports: ports.map(({ name, console, flow }) => ({ channel: options.channel(name, flow), name, console })),
    });
    options.addVirtio(serial);
  }
  return {
    balloon: (target) => setBalloon(balloon, target),
    resizeConsole: (name, rows, columns) => {
      const id = ports.findIndex((port) => port.name === name && port.console);
      if (id >= 0) serial?.resize(id, columns, rows);
      return id >= 0;
    },
  };
}

function setBalloon(balloon: VirtioBalloon | undefined, target: number | undefined): BalloonReport {
  if (!balloon) {
    throw new NemuError('BALLOON', 'The machine has no balloon.', { hint: 'Start it with --device virtio-balloon.' });
  }
  if (target !== undefined) balloon.setTarget(target);
  balloon.refreshStats();
  return { target: balloon.target, actual: balloon.actual, statistics: balloon.stats() };
}
