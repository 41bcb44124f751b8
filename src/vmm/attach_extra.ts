import { type OtherDevice, type Stream, streams } from '../client/device_schema.ts';
import { NemuError } from '../client/errors.ts';
import type { BalloonReport, MachineEvent } from '../client/machine_client.ts';
import type { ByteChannel, Clock } from '../devices/device.ts';
import { VirtioBalloon } from '../devices/virtio/balloon.ts';
import { VirtioConsole } from '../devices/virtio/console.ts';
import type { MadeVirtio } from './attach.ts';
import { Paced } from './paced.ts';

export interface ExtraOptions {
  /** The machine's end of a stream, by its name. */
  readonly channel: (name: string, flow: 'drop' | 'wait') => ByteChannel;
  /** A stream's device is gone. */
  readonly endChannel: (name: string) => void;
  readonly clock: Clock;
  /** Gives the host memory back that the guest does not use. */
  readonly discard: (gpa: number, length: number) => void;
  readonly event: (event: MachineEvent) => void;
}

/** Balloon, consoles and ports. */
export interface Extra {
  make(
    device: Extract<OtherDevice, { type: 'virtio-balloon' | 'virtio-console' | 'virtio-port' }>,
    id: string,
  ): MadeVirtio;
  /** One device with all of these. */
  consoles(name: string, ports: readonly Stream[]): MadeVirtio;
  /** @throws NemuError BALLOON for a machine without one, or a size that it cannot have. */
  balloon(target: number | undefined): BalloonReport;
  /** @returns whether the console has a size that the guest can be told. */
  resizeConsole(name: string, rows: number, columns: number): boolean;
}

export function attachExtra(options: ExtraOptions): Extra {
  let balloon: VirtioBalloon | undefined;
  /** Where each console is, by its name. */
  const terminals = new Map<string, { readonly device: VirtioConsole; readonly port: number }>();
  const consoles = (name: string, ports: readonly Stream[]): MadeVirtio => {
    const opened = ports.map(
      (port) => new Paced<boolean>(options.clock, (open) => options.event({ type: 'port', name: port.name, open })),
    );
    const device = new VirtioConsole({
      name,
      ports: ports.map((port, index) => ({
        channel: options.channel(port.name, port.flow),
        name: port.name,
        console: port.console,
        onGuestOpen: (open) => opened[index].say(open),
      })),
    });
    for (const [port, { name: terminal, console }] of ports.entries())
      if (console) terminals.set(terminal, { device, port });
    return {
      device,
      packed: false,
      settle: (done) => done(),
      close: () => {
        for (const each of opened) each.close();
        for (const port of ports) {
          terminals.delete(port.name);
          options.endChannel(port.name);
        }
      },
    };
  };
  return {
    make: (device, id) => {
      if (device.type !== 'virtio-balloon') {
        const [stream] = streams([device]);
        return consoles(id, [{ ...stream, name: id }]);
      }
      const size = new Paced<number>(options.clock, (actual) => options.event({ type: 'balloon', actual }));
      const made = new VirtioBalloon({
        name: id,
        onActual: (actual) => size.say(actual),
        backend: { discard: options.discard },
        deflateOnOom: device.deflateOnOom,
        reporting: device.reporting,
      });
      balloon = made;
      return {
        device: made,
        packed: false,
        settle: (done) => done(),
        close: () => {
          size.close();
          if (balloon === made) balloon = undefined;
        },
      };
    },
    consoles,
    balloon: (target) => setBalloon(balloon, target),
    resizeConsole: (name, rows, columns) => {
      const found = terminals.get(name);
      found?.device.resize(found.port, columns, rows);
      return found !== undefined;
    },
  };
}

function setBalloon(balloon: VirtioBalloon | undefined, target: number | undefined): BalloonReport {
  if (!balloon) {
    throw new NemuError('BALLOON', 'The machine has no balloon.', {
      hint: "Start it with --device virtio-balloon, or plug one: vm.pci.plug('virtio-balloon').",
    });
  }
  if (target !== undefined) balloon.setTarget(target);
  balloon.refreshStats();
  return { target: balloon.target, actual: balloon.actual, statistics: balloon.stats() };
}
