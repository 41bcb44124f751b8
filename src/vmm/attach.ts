import { getRandomValues } from 'node:crypto';
import type { DiskDescription, NetBackendDescription, NetDescription } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { GuestFault } from '../devices/device.ts';
import { type BlkErrorAction, type BlkOperation, VirtioBlk } from '../devices/virtio/blk.ts';
import type { VirtioDevice } from '../devices/virtio/device.ts';
import { VirtioNet } from '../devices/virtio/net.ts';
import { VirtioRng } from '../devices/virtio/rng.ts';
import { errnoName } from '../ffi/libc.ts';
import type { NetBackend } from '../net/backend.ts';
import { SlirpBackend } from '../net/slirp.ts';
import { openTap } from '../net/tap.ts';
import type { BlockImage } from '../storage/block_image.ts';
import { ImageInUse } from '../storage/error.ts';
import { ENOSPC } from '../storage/file_queue.ts';
import { openImage } from '../storage/open.ts';
import { asNemuError } from './backend_error.ts';
import { LiveDisks } from './live_disks.ts';
import { LiveNets, slirpOf } from './live_nets.ts';
import type { MachineClock } from './machine_clock.ts';
import { MeteredImage } from './metered_image.ts';
import { MeteredNet, WaitMeter } from './metered_net.ts';
import { Paced } from './paced.ts';
import type { Reactor } from './reactor.ts';

export interface AttachOptions {
  readonly reactor: Reactor;
  readonly clock: MachineClock;
  readonly fault: GuestFault;
  /** A disk's request failed; by its policy to stop, the machine pauses. */
  readonly failed: (
    disk: string,
    operation: BlkOperation,
    errno: string,
    offset: number,
    action: BlkErrorAction,
  ) => void;
}

/** A virtio device with what stands behind it on the host. */
export interface MadeVirtio {
  readonly device: VirtioDevice;
  readonly packed: boolean;
  /** Why it cannot be taken out, if it cannot. */
  kept?(): NemuError | undefined;
  /** Brings what is under way to its end; it is off its bus. @param done called when that is so. */
  settle(done: () => void): void;
  /** Gives back what it has of the host. */
  close(): void;
}

/** Disks, network cards and entropy, with their images and interfaces. */
export interface Attached {
  readonly disks: LiveDisks;
  readonly nets: LiveNets;
  /** @throws NemuError DISK that names what cannot be had. */
  disk(disk: DiskDescription, name: string): MadeVirtio;
  /** @throws NemuError NET that names what cannot be had. */
  net(net: NetDescription, name: string): MadeVirtio;
  rng(name: string): MadeVirtio;
  /** Puts what is written on stable storage and lets go of files and interfaces. */
  close(): void;
}

export function attachDevices(options: AttachOptions): Attached {
  const closers = new Set<() => void>();
  const open = (disk: DiskDescription) => openDisk(disk, options, (file) => disks.holderOf(file));
  const disks = new LiveDisks({ open, fault: options.fault });
  const nets = new LiveNets({ open: (net) => openNet(net, options) });
  const cards = new Map<string, number>();

  function addDisk(disk: DiskDescription, name: string): MadeVirtio {
    const image = new MeteredImage(open(disk), options.clock, disk.throttle);
    const close = () => image.close();
    closers.add(close);
    const failed = new Paced<Parameters<AttachOptions['failed']>>(options.clock, (failure) =>
      options.failed(...failure),
    );
    const device = new VirtioBlk({
      name,
      backend: image,
      queues: disk.queues,
      ...(disk.serial !== undefined && { serial: disk.serial }),
      onError: (operation, errno, offset) => {
        const action = errorAction(disk, operation, errno);
        const failure = [name, operation, errnoName(errno), offset, action] as const;
        if (action === 'stop') options.failed(...failure);
        else failed.say([...failure]);
        return action;
      },
    });
    disks.add(name, { image, device, description: disk });
    return {
      device,
      packed: disk.packed,
      // What is left to be written is, without this thread waiting for it.
      settle: (done) => image.flush(() => done()),
      close: () => {
        failed.close();
        disks.remove(name);
        if (closers.delete(close)) close();
      },
    };
  }

  function addNet(net: NetDescription, name: string): MadeVirtio {
    const backends = openNet(net, options);
    const network = new MeteredNet(backends, options.clock, net.throttle);
    const close = () => network.close();
    closers.add(close);
    let index = Number(/^net(\d+)$/.exec(name)?.[1] ?? 0);
    while ([...cards.values()].includes(index)) index++;
    cards.set(name, index);
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
    nets.add(name, {
      ...{ net: network, device, mac: [...mac].map(hexByte).join(':'), waits },
      ...{ description: net, slirp: slirpOf(backends) },
    });
    return {
      device,
      packed: net.packed,
      settle: (done) => done(),
      close: () => {
        nets.remove(name);
        cards.delete(name);
        if (closers.delete(close)) close();
      },
    };
  }

  return {
    ...{ disks, nets, disk: addDisk, net: addNet },
    rng: (name) => ({
      device: new VirtioRng(name, (into) => {
        // The generator takes 64 KiB at a time, and no memory that others share.
        for (let at = 0; at < into.length; at += 65536) {
          into.set(getRandomValues(new Uint8Array(Math.min(65536, into.length - at))), at);
        }
      }),
      packed: false,
      settle: (done) => done(),
      close: () => {},
    }),
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

/** @param holderOf tells which disk of this machine has a file. */
function openDisk(
  disk: DiskDescription,
  options: AttachOptions,
  holderOf: (file: string) => string | undefined,
): BlockImage {
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
    const holder = cause instanceof ImageInUse ? holderOf(disk.file) : undefined;
    if (holder === undefined) throw asNemuError('DISK', cause);
    throw new NemuError('DISK', `The disk image ${disk.file} is in use: it is ${holder} of this machine.`, {
      hint: 'It can be several disks only where all of them have readonly=on.',
      cause,
    });
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
    throw asNemuError('NET', cause);
  }
}

const hexByte = (byte: number) => byte.toString(16).padStart(2, '0');

/** QEMU's locally administered prefix, and the card's number. */
function macAddress(net: NetDescription, index: number): Uint8Array {
  if (net.mac !== undefined) return Uint8Array.from(net.mac.split(':'), (byte) => Number.parseInt(byte, 16));
  return Uint8Array.of(0x52, 0x54, 0x00, 0x12, 0x34, 0x56 + index);
}
