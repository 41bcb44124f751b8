import type { MachineDescription } from '../../client/description.ts';
import { diskName } from '../../client/description.ts';
import { BOOT_TYPES, type DeviceType, SINGLE_TYPES, type Stream } from '../../client/device_schema.ts';
import { NemuError } from '../../client/errors.ts';
import type { PciDevice, PciPlug, PciPlugInput, PciPortReport } from '../../client/live.ts';
import { PciBridge } from '../../devices/pci/bridge.ts';
import { PCI, PCI_COMMAND_MEMORY } from '../../devices/pci/config_space.ts';
import type { PciFunction, PciSlot } from '../../devices/pci/function.ts';
import { UpstreamPort } from '../../devices/pci/switch.ts';
import type { PcPci } from '../pci/pc.ts';
import type { PciPlace } from '../pci/places.ts';
import { Q35Pci } from '../pci/q35.ts';
import type { SerialRings } from '../serial_channel.ts';
import type { GuestActs, HostPart, LiveKind } from './kind.ts';
import type { DimmRoom } from './room.ts';

/** A device with what stands behind it on the host, before it is on a bus. */
export interface MadeDevice {
  /** @param started to be called when a driver is ready with it. @param place where it is put. */
  make(slot: PciSlot, started: () => void, place: PciPlace): PciFunction;
  /** Whether `make` calls `started`. */
  readonly tellsStart: boolean;
  /** The main thread made its part. @throws what the host says against it. */
  prepared?(host: HostPart): void;
  /** Why it cannot be taken out, if it cannot. */
  kept?(): NemuError | undefined;
  /** Brings what is under way to its end; the function is off its bus. @param done called when that is so. */
  settle(done: () => void): void;
  /** Gives back what it has of the host. */
  close(): void;
}

/** What the board has for devices of PCI. */
export interface PciBoard {
  readonly pci: PcPci;
  /**
   * Opens what is behind a device.
   * @param address of the memory that a device which is plugged brings. @throws NemuError that says what cannot be had.
   */
  make(plug: PciPlug, id: string, address?: number): MadeDevice;
  /** Rings of the streams of a device that is plugged. */
  addStreams(rings: Readonly<Record<string, SerialRings>>): void;
}

export interface PciHotplugOptions {
  readonly description: Pick<MachineDescription, 'machine' | 'serial'>;
  readonly room: Pick<DimmRoom, 'takeRegion' | 'freeRegion' | 'retireRegion' | 'hasId'>;
  /** Memory of devices of the start, by their ids. */
  readonly regions: ReadonlyMap<string, DeviceMemory>;
  readonly guest: GuestActs;
  /** Whether a device may leave at any moment. */
  readonly isLeaving: (id: string) => boolean;
}

/** Guest-physical memory that a device brings. */
export type DeviceMemory = NonNullable<PciDevice['memory']>;

interface Held {
  readonly device: PciDevice;
  readonly place: PciPlace;
  readonly made: MadeDevice;
  attached: boolean;
  function: PciFunction | undefined;
  /** Takes the places of a switch away. */
  removePorts?: () => void;
  readonly ports: string[];
}

/** What a device has while it is there. */
interface HeldPlace {
  readonly id: string;
  readonly place: PciPlace;
  readonly memory: DeviceMemory | undefined;
  /** Of the memory of a device that is plugged. */
  readonly address?: number | undefined;
}

/** Ids that other kinds of devices have. */
const OTHERS_ID = /^(cpu|dimm|com)\d+$/;
/** A switch's own bus, and the one between its ports. */
const BUSES_OF_SWITCH = 2;

/** Devices of PCI that come and go. */
export class PciHotplug implements LiveKind<PciDevice, PciPlug> {
  readonly onlineWhenAccepted = false;
  readonly #options: PciHotplugOptions;
  readonly #held = new Map<string, Held>();
  #board: PciBoard | undefined;

  constructor(options: PciHotplugOptions) {
    this.#options = options;
  }

  /** A machine without PCI never calls it. */
  connect(board: PciBoard): void {
    this.#board = board;
  }

  /** Puts a device in that is there from the start. @param streams of one device that has several. */
  boot(
    plug: PciPlug,
    made?: { readonly id: string; readonly streams: readonly Stream[]; readonly device: MadeDevice },
  ) {
    const board = this.#board as PciBoard;
    const id = made?.id ?? this.#id(plug);
    this.#requireType(plug, board);
    const place = plug.port === undefined ? board.pci.bootPlace() : this.#place(plug, board, true);
    const held = this.#hold(board, plug, { id, place, memory: this.#options.regions.get(id) }, made);
    this.#insert(held, board);
    // The slot of what stays says of itself that nothing can be taken out of it.
    if (!BOOT_TYPES.includes(plug.type) || place.kind === 'port') held.place.occupy();
  }

  reserve(plug: PciPlug): PciDevice {
    const board = this.#board;
    if (!board) {
      throw new NemuError(
        'NO_PCI',
        `The machine type ${this.#options.description.machine} has no PCI to plug devices into.`,
        {
          hint: 'Use --machine q35 or pc.',
        },
      );
    }
    this.#requireType(plug, board);
    if (BOOT_TYPES.includes(plug.type)) {
      throw new NemuError('DEVICE', `A ${plug.type} is there from the start, or not at all.`, {
        hint: `Start the machine with it: --device ${plug.type}.`,
      });
    }
    const id = this.#id(plug);
    const place = this.#place(plug, board, false);
    const memory = this.#takeMemory(plug, id);
    try {
      return this.#hold(board, plug, { id, place, memory, address: memory?.address }).device;
    } catch (error) {
      this.#options.room.freeRegion(id);
      throw error;
    }
  }

  /** Room for the memory that a device brings. @throws NemuError that names the limit in the way. */
  #takeMemory(plug: PciPlug, id: string): DeviceMemory | undefined {
    if (plug.type !== 'virtio-mem' && plug.type !== 'virtio-pmem') return undefined;
    const { size } = plug;
    if (size === undefined) throw new Error(`The size of ${id} is not known.`);
    const place = plug.type === 'virtio-mem' ? { alignment: plug.block, node: plug.node } : { alignment: 1 };
    return { address: this.#options.room.takeRegion(id, { size, ...place }), size };
  }

  /** Takes a place for a device. Its file or interface is opened now, so that a busy one is told of before all else. */
  #hold(
    board: PciBoard,
    plug: PciPlug,
    { id, place, memory, address }: HeldPlace,
    several?: { readonly streams: readonly Stream[]; readonly device: MadeDevice },
  ): Held {
    const made = several?.device ?? board.make(plug, id, address);
    const device: PciDevice = {
      ...{ kind: 'pci', id, type: plug.type, port: place.id, streams: several?.streams ?? streamsOf(plug, id) },
      // A device of several streams is none that one request makes.
      ...((several?.streams.length ?? 1) === 1 && { plug: again(plug, id, place.id) }),
      ...(memory && { memory }),
    };
    const held: Held = { device, place, made, attached: false, function: undefined, ports: [] };
    this.#held.set(id, held);
    return held;
  }

  #requireType(plug: PciPlug, { pci }: PciBoard): void {
    const { type } = plug;
    const other = [...this.#held.values()].find(({ device }) => device.type === type);
    if (SINGLE_TYPES.includes(type) && other) {
      throw new NemuError('DEVICE', `A machine has one ${type} at most: there is ${other.device.id}.`, {
        hint: `Unplug ${other.device.id} first.`,
      });
    }
    if (type === 'pcie-switch' && !(pci instanceof Q35Pci)) {
      throw new NemuError('DEVICE', 'A switch is for PCI Express, which this machine has not.', {
        hint: 'Use --machine q35.',
      });
    }
  }

  #id(plug: PciPlug): string {
    const taken = (id: string) => this.hasId(id) || this.#options.room.hasId(id);
    const wanted = plug.type === 'virtio-port' ? plug.name : plug.id;
    if (wanted === undefined) {
      const name = defaultName(plug.type);
      for (let i = 0; ; i++) if (!taken(name(i))) return name(i);
    }
    if (taken(wanted) || OTHERS_ID.test(wanted)) {
      throw new NemuError('ID', `There is a ${wanted} already.`, { hint: 'Give another id, or none.' });
    }
    return wanted;
  }

  /** Whether a device of PCI, or a stream, has an id. */
  hasId(id: string): boolean {
    return this.#held.has(id) || this.#streams().includes(id);
  }

  #streams(): string[] {
    const own = [...this.#held.values()].flatMap(({ device }) => device.streams.map(({ name }) => name));
    return [...this.#options.description.serial.map(({ port }) => port as string), ...own];
  }

  /** The place that a device names, or the first that is free. @param atBoot fixed places can be had too. */
  #place(plug: PciPlug, { pci }: PciBoard, atBoot: boolean): PciPlace {
    const { port: wanted, type } = plug;
    const express = pci instanceof Q35Pci;
    const places = pci.places;
    const free = places.filter((place) => !this.#holder(place) && (atBoot || !place.fixed));
    const raise = express
      ? 'Unplug something (a pcie-switch in its place brings more ports), or start the machine with more: --pcie root-ports=8.'
      : 'Unplug something first.';
    if (wanted === undefined) {
      const kind = express ? 'port' : 'slot';
      const candidates = free.filter((place) => place.kind === kind && !this.#unfit(plug, place));
      // Where the guest still tidies up, a device would have to wait.
      const [candidate] = candidates.toSorted((a, b) => Number(a.waits !== undefined) - Number(b.waits !== undefined));
      if (candidate) return candidate;
      const unfit = free.find((place) => place.kind === kind);
      if (unfit) throw this.#unfit(plug, unfit) as NemuError;
      const count = places.filter((place) => place.kind === kind).length;
      throw new NemuError(
        'PCI_PORTS',
        count === 0 ? 'This machine has no hot-plug port.' : `All ${count} hot-plug ${kind}s are taken.`,
        { hint: raise },
      );
    }
    // A bridge or a switch by its name is the first free place behind it.
    const place =
      places.find(({ id }) => id === wanted) ?? free.find(({ id }) => id.slice(0, id.lastIndexOf('.')) === wanted);
    if (!place || (place.fixed && !atBoot)) {
      throw new NemuError('PCI_PORTS', `There is no place ${wanted} for a ${type} to come and go.`, {
        hint: `Free: ${free.map(({ id }) => id).join(', ') || `none. ${raise}`}.`,
      });
    }
    const holder = this.#holder(place);
    if (holder) {
      throw new NemuError('PCI_PORTS', `${wanted} has ${holder.device.id} in it.`, {
        hint: `Free: ${free.map(({ id }) => id).join(', ') || `none. ${raise}`}.`,
      });
    }
    const unfit = this.#unfit(plug, place);
    if (unfit) throw unfit;
    return place;
  }

  /** Why a device cannot stand in a place. */
  #unfit(plug: PciPlug, place: PciPlace): NemuError | undefined {
    const above = [...this.#held.values()].find(({ ports }) => ports.includes(place.id));
    if (above && this.#options.isLeaving(above.device.id)) {
      return new NemuError('BUSY', `${place.id} is going: ${above.device.id} is being unplugged.`, {
        hint: 'Use another port, or wait for that request to settle.',
      });
    }
    if (plug.type === 'i6300esb' && place.kind === 'port') {
      return new NemuError(
        'PCI_PORTS',
        `The watchdog i6300esb is a conventional PCI device: ${place.id} takes devices of PCI Express.`,
        { hint: 'It can be there from the start (--device i6300esb), or be plugged into a machine of type pc.' },
      );
    }
    if (plug.type !== 'pcie-switch') return undefined;
    const needed = plug.ports + BUSES_OF_SWITCH;
    if (place.kind === 'port' && place.buses >= needed) return undefined;
    return new NemuError(
      'PCI_BUSES',
      `A switch with ${plug.ports} ports needs ${needed} bus numbers; ${place.buses} are kept behind ${place.id}.`,
      { hint: `Start the machine with more behind each port: --pcie buses=${needed}.` },
    );
  }

  #holder(place: PciPlace): Held | undefined {
    return [...this.#held.values()].find((held) => held.place.id === place.id);
  }

  attach(device: PciDevice, host: HostPart = {}): void {
    const held = this.#held.get(device.id);
    const board = this.#board;
    if (!held || !board) return;
    board.addStreams(host.rings ?? {});
    held.made.prepared?.(host);
    this.#insert(held, board);
    held.place.insert();
  }

  /** Puts a device's functions on the bus, and listens to what the guest does. */
  #insert(held: Held, { pci }: PciBoard): void {
    const { device, place, made } = held;
    const { guest } = this.#options;
    const started = () => guest.started(device);
    const placed = pci.addEndpoint(place, (slot) => made.make(slot, started, place));
    held.function = placed;
    held.attached = true;
    if (held.device.type === 'pci-bridge' && placed instanceof PciBridge) {
      held.ports.push(...pci.addBridge(placed).map(({ id }) => id));
    } else if (placed instanceof UpstreamPort && pci instanceof Q35Pci && held.device.plug?.type === 'pcie-switch') {
      const { ports, remove } = pci.addSwitch(placed, held.device.plug.ports ?? 0);
      held.removePorts = remove;
      held.ports.push(...ports.map(({ name }) => name));
      for (const port of ports) {
        port.onListening = () => {
          if (ports.every(({ isListening }) => isListening)) started();
        };
      }
    } else {
      placed.config.watch(PCI.COMMAND, 2, () => {
        if (!(placed.command & PCI_COMMAND_MEMORY)) return;
        if (place.kind === 'slot') guest.accepted(device, 'plug', 'it turned the device on');
        if (!made.tellsStart) started();
      });
    }
    place.watcher = {
      noticed: () => guest.noticed(device),
      accepted: (words) => guest.accepted(device, 'plug', words),
      leaving: (words) => guest.accepted(device, 'unplug', words),
      kept: (words) => guest.refused(device, 'unplug', words),
      released: (words) => guest.ejected(device, words, place.kind === 'port'),
    };
  }

  requireRemovable({ id, type }: PciDevice): void {
    const held = this.#held.get(id);
    if (BOOT_TYPES.includes(type)) {
      throw new NemuError('DEVICE', `${id} is a ${type}: it stays as long as the machine.`);
    }
    if (held?.place.fixed) {
      throw new NemuError(
        'DEVICE',
        `${id} stands in ${held.place.id}, behind a bridge to conventional PCI: nothing comes or goes there.`,
        { hint: 'Ports of PCI Express and slots of the root bus are for that.' },
      );
    }
    const kept = held?.made.kept?.();
    if (kept) throw kept;
    const inside = held ? this.#behind(held).map(({ device }) => device.id) : [];
    if (inside.length === 0) return;
    throw new NemuError('BUSY', `${id} has ${inside.join(' and ')} behind it.`, {
      hint: `Unplug ${inside.join(' and ')} first.`,
    });
  }

  /** What stands behind a switch or a bridge. */
  #behind({ ports }: Held): Held[] {
    return [...this.#held.values()].filter(({ place }) => ports.includes(place.id));
  }

  requestRemoval({ id }: PciDevice): void {
    this.#held.get(id)?.place.requestRemoval();
  }

  /** Why a guest may not have looked at a device yet. */
  waits({ id }: PciDevice): string | undefined {
    return this.#held.get(id)?.place.waits;
  }

  detach(device: PciDevice, done: () => void): void {
    const held = this.#held.get(device.id);
    if (!held) return;
    const { place, made } = held;
    // The guest has let go of what is behind it as well, also of what it has not looked at.
    for (const behind of this.#behind(held)) {
      this.#options.guest.ejected(behind.device, `it let go of ${device.id}, behind which it stood`);
    }
    place.watcher = undefined;
    held.attached = false;
    const root = this.#board?.pci.root;
    const remains = held.function && root?.remains(held.function);
    place.remove();
    if (held.function) {
      held.function.reset();
      root?.remove(held.function);
    }
    // It was torn out of a guest that has yet to notice.
    if (place.waits !== undefined) {
      const before = place.onSettled;
      const undo = remains?.();
      place.onSettled = () => {
        before?.();
        undo?.();
      };
    }
    held.removePorts?.();
    made.settle(done);
  }

  vacate({ id, type }: PciDevice): void {
    const { room } = this.#options;
    const held = this.#held.get(id);
    held?.made.close();
    this.#held.delete(id);
    // Linux may have failed to take blocks of it offline that it has told us to be unplugged, and tries again a minute
    // later: what came to these addresses before would be mapped over memory that it believes to have.
    if (type === 'virtio-mem' && held?.function) room.retireRegion(id);
    else room.freeRegion(id);
  }

  present(): PciDevice[] {
    return [...this.#held.values()].filter(({ attached }) => attached).map(({ device }) => device);
  }

  ports(): PciPortReport[] {
    return (this.#board?.pci.places ?? [])
      .filter(({ fixed }) => !fixed)
      .map((place) => {
        const holder = this.#holder(place);
        return {
          ...{ id: place.id, kind: place.kind },
          ...(holder && { device: holder.device.id }),
          ...(place.state && { state: place.state }),
        };
      });
  }
}

const NAMES: Readonly<Record<DeviceType, (index: number) => string>> = {
  'virtio-blk': diskName,
  'virtio-net': (index) => `net${index}`,
  'virtio-rng': (index) => (index === 0 ? 'rng' : `rng${index}`),
  'virtio-balloon': (index) => (index === 0 ? 'balloon' : `balloon${index}`),
  'virtio-console': (index) => `hvc${index}`,
  'virtio-port': (index) => `port${index}`,
  i6300esb: (index) => (index === 0 ? 'watchdog' : `watchdog${index}`),
  'pcie-switch': (index) => `sw${index}`,
  'pci-bridge': (index) => `br${index}`,
  'virtio-pmem': (index) => `pmem${index}`,
  'virtio-mem': (index) => `vm${index}`,
};
const defaultName = (type: DeviceType) => NAMES[type];

function streamsOf(plug: PciPlug, id: string): Stream[] {
  if (plug.type !== 'virtio-console' && plug.type !== 'virtio-port') return [];
  return [{ name: id, console: plug.type === 'virtio-console', flow: plug.flow }];
}

/** What plugs the same device into the same place. */
function again(plug: PciPlug, id: string, port: string): PciPlugInput {
  return plug.type === 'virtio-port' ? { ...plug, port } : { ...plug, id, port };
}
