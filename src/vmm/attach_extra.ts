import { type OtherDevice, type Stream, streams } from '../client/device_schema.ts';
import { NemuError } from '../client/errors.ts';
import type { BalloonReport } from '../client/machine_client.ts';
import type { ByteChannel, Clock } from '../devices/device.ts';
import { VirtioBalloon } from '../devices/virtio/balloon.ts';
import { VirtioConsole } from '../devices/virtio/console.ts';
import type { MadeVirtio } from './attach.ts';

export interface ExtraOptions {
  /** The machine's end of a stream, by its name. */
  readonly channel: (name: string, flow: 'drop' | 'wait') => ByteChannel;
  /** A stream's device is gone. */
  readonly endChannel: (name: string) => void;
  readonly clock: Clock;
  /** Gives the host memory back that the guest does not use. */
  readonly discard: (gpa: number, length: number) => void;
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
}

export function attachExtra(options: ExtraOptions): Extra {
  let balloon: VirtioBalloon | undefined;
  const consoles = (name: string, ports: readonly Stream[]): MadeVirtio => ({
    device: new VirtioConsole({
      name,
      ports: ports.map((port) => ({
        channel: options.channel(port.name, port.flow),
        name: port.name,
        console: port.console,
      })),
    }),
    packed: false,
    settle: (done) => done(),
    close: () => {
      for (const port of ports) options.endChannel(port.name);
    },
  });
  return {
    make: (device, id) => {
      if (device.type !== 'virtio-balloon') {
        const [stream] = streams([device]);
        return consoles(id, [{ ...stream, name: id }]);
      }
      const made = new VirtioBalloon({
        name: id,
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
          if (balloon === made) balloon = undefined;
        },
      };
    },
    consoles,
    balloon: (target) => setBalloon(balloon, target),
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
