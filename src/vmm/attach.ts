import { getRandomValues } from 'node:crypto';
import {
  type DiskDescription,
  diskName,
  type MachineDescription,
  type NetBackendDescription,
  type NetDescription,
} from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { GuestFault } from '../devices/device.ts';
import { type BlkErrorAction, type BlkOperation, VirtioBlk } from '../devices/virtio/blk.ts';
import type { VirtioDevice } from '../devices/virtio/device.ts';
import { VirtioNet } from '../devices/virtio/net.ts';
import { VirtioRng } from '../devices/virtio/rng.ts';
import type { TransportOptions } from '../devices/virtio/transport.ts';
import { errnoName } from '../ffi/libc.ts';
import { type NetBackend, NetError } from '../net/backend.ts';
import { SlirpBackend } from '../net/slirp.ts';
import { openTap } from '../net/tap.ts';
import type { BlockImage } from '../storage/block_image.ts';
import { StorageError } from '../storage/error.ts';
import { ENOSPC } from '../storage/file_queue.ts';
import { openImage } from '../storage/open.ts';
import { LiveDisks } from './live_disks.ts';
import { LiveNets, slirpOf } from './live_nets.ts';
import type { MachineClock } from './machine_clock.ts';
import { MeteredImage } from './metered_image.ts';
import { MeteredNet, WaitMeter } from './metered_net.ts';
import type { Reactor } from './reactor.ts';

export interface AttachOptions {
  readonly description: MachineDescription;
  /** Puts a virtio device where the machine has room for it. */
  readonly addVirtio: (device: VirtioDevice, transport: TransportOptions) => void;
  readonly reactor: Reactor;
  readonly clock: MachineClock;
  readonly fault: GuestFault;
  /** A disk's request failed and its policy is to stop: the machine pauses. */
  readonly stopped: (disk: string, operation: BlkOperation, errno: string, offset: number) => void;
}

/** The devices that the user asked for, on the machine's buses. */
export interface Attached {
  readonly disks: LiveDisks;
  readonly nets: LiveNets;
  /** Puts what is written on stable storage and lets go of files and interfaces. */
  close(): void;
}

/** @throws NemuError DISK or NET that names what cannot be had. */
export function attachDevices(options: AttachOptions): Attached {
  const { description } = options;
  const closers: (() => void)[] = [];
  const disks = new LiveDisks({ open: (disk) => openDisk(disk, options), fault: options.fault });
  const nets = new LiveNets({ open: (net) => openNet(net, options) });
  const add = (device: VirtioDevice, packed: boolean) => options.addVirtio(device, { packed, fault: options.fault });
  try {
    for (const [index, disk] of description.disks.entries()) {
      const name = disk.id ?? diskName(index);
      const image = new MeteredImage(openDisk(disk, options), options.clock, disk.throttle);
      closers.push(() => image.close());
      const device = new VirtioBlk({
        name,
        backend: image,
        queues: disk.queues,
        ...(disk.serial !== undefined && { serial: disk.serial }),
        onError: (operation, errno, offset) => {
          const action = errorAction(disk, operation, errno);
          if (action === 'stop') options.stopped(name, operation, errnoName(errno), offset);
          return action;
        },
      });
      add(device, disk.packed);
      disks.add(name, { image, device, description: disk });
    }
    for (const [index, net] of description.nets.entries()) {
      const name = net.id ?? `net${index}`;
      const backends = openNet(net, options);
      const network = new MeteredNet(backends, options.clock, net.throttle);
      closers.push(() => network.close());
      const mac = macAddress(net, index);
      const waits = { rx: new WaitMeter(), tx: new WaitMeter() };
      const device = new VirtioNet({
        name,
        mac,
        backends: network.ports,
        link: net.link,
        onWait: (direction, ms) => waits[direction].add(ms),
        ...(net.mtu !== undefined && { mtu: net.mtu }),
      });
      add(device, net.packed);
      nets.add(name, {
        ...{ net: network, device, mac: [...mac].map(hexByte).join(':'), waits },
        ...{ description: net, slirp: slirpOf(backends) },
      });
    }
    if (description.rng) {
      add(
        new VirtioRng('rng', (into) => {
          // The generator takes 64 KiB at a time, and no memory that others share.
          for (let at = 0; at < into.length; at += 65536) {
            into.set(getRandomValues(new Uint8Array(Math.min(65536, into.length - at))), at);
          }
        }),
        false,
      );
    }
  } catch (error) {
    for (const close of closers) close();
    throw error;
  }
  return {
    disks,
    nets,
    close: () => {
      for (const close of closers) close();
    },
  };
}

function errorAction(disk: DiskDescription, operation: BlkOperation, errno: number): BlkErrorAction {
  if (operation === 'read') return disk.rerror;
  if (disk.werror === 'enospc') return errno === ENOSPC ? 'stop' : 'report';
  return disk.werror;
}

function openDisk(disk: DiskDescription, options: AttachOptions): BlockImage {
  try {
    return openImage({
      path: disk.file,
      format: disk.format,
      readOnly: disk.readonly,
      direct: disk.cache === 'none',
      poller: options.reactor,
      onProblem: (problem) => options.fault(disk.file, problem.message),
    });
  } catch (cause) {
    throw translated('DISK', cause);
  }
}

function openNet(net: NetBackendDescription, { reactor, clock }: AttachOptions): NetBackend[] {
  try {
    if (net.type === 'tap') {
      return openTap({ queues: net.queues, ...(net.ifname !== undefined && { ifname: net.ifname }) }, reactor);
    }
    const { net: network, hostname, restrict, hostForwards } = net;
    return [
      new SlirpBackend(
        {
          restrict,
          hostForwards: hostForwards.map(({ guestAddress, ...forward }) => ({
            ...forward,
            ...(guestAddress !== undefined && { guestAddress }),
          })),
          ...(network !== undefined && { net: network }),
          ...(hostname !== undefined && { hostname }),
        },
        reactor,
        clock,
      ),
    ];
  } catch (cause) {
    throw translated('NET', cause);
  }
}

function translated(code: string, cause: unknown): unknown {
  if (!(cause instanceof StorageError) && !(cause instanceof NetError)) return cause;
  return new NemuError(code, cause.message, { ...(cause.hint !== undefined && { hint: cause.hint }), cause });
}

const hexByte = (byte: number) => byte.toString(16).padStart(2, '0');

/** QEMU's locally administered prefix, and the card's number. */
function macAddress(net: NetDescription, index: number): Uint8Array {
  if (net.mac !== undefined) return Uint8Array.from(net.mac.split(':'), (byte) => Number.parseInt(byte, 16));
  return Uint8Array.of(0x52, 0x54, 0x00, 0x12, 0x34, 0x56 + index);
}
