import type { MachineDescription } from '../../client/description.ts';
import { NemuError } from '../../client/errors.ts';
import type { NvdimmPlug } from '../../client/live.ts';
import type { NvdimmDevice, NvdimmReport } from '../../client/nvdimm.ts';
import { AcpiNvdimm } from '../../devices/acpi_nvdimm.ts';
import type { GuestFault } from '../../devices/device.ts';
import { HINT_STRIDE, NvdimmHints } from '../../devices/nvdimm_hints.ts';
import type { Poller } from '../../storage/file_queue.ts';
import { openImageFile } from '../../storage/image_file.ts';
import { isSameFile } from '../../storage/lock.ts';
import { nfitSlot, nfitStructures } from '../acpi/nfit.ts';
import type { KvmVm } from '../kvm.ts';
import type { GuestMemoryView } from '../memory.ts';
import { PmemFile, type PmemStore } from '../pmem_file.ts';
import { FIRST_MEMSLOT } from './dimms.ts';
import type { GuestActs, HostPart, LiveKind } from './kind.ts';
import type { DimmRoom } from './room.ts';

const GPE = 4;
const KVM_MEM_READONLY = 1 << 1;
/** Where flush hint addresses are: behind the local APICs, where a PC has nothing. */
export const HINTS_BASE = 0xfef00000;

/** What has to be done in a Linux guest: it takes NVDIMMs out only all together, by its driver. */
const HOW_TO_LET_GO =
  'it still has it. In the guest, unmount what is on NVDIMMs, then have their driver read the NFIT anew: ' +
  'cd /sys/bus/acpi/drivers/nfit; echo ACPI0012:00 >unbind; echo ACPI0012:00 >bind';

/** Whether what the guest writes gets into the file. */
const writes = ({ share, readonly }: Pick<NvdimmDevice, 'share' | 'readonly'>) => share && !readonly;

/** An NVDIMM of the start, with the descriptor of its file. */
export interface BootNvdimm {
  readonly device: NvdimmDevice;
  readonly fd: number;
}

export interface NvdimmHotplugOptions {
  readonly description: Pick<MachineDescription, 'nvdimmPersistence'>;
  readonly boot: readonly BootNvdimm[];
  readonly room: DimmRoom;
  readonly memory: GuestMemoryView;
  readonly vm: KvmVm;
  readonly poller: Poller;
  readonly guest: GuestActs;
  readonly raiseGpe: (number: number) => void;
  /** Holds the access that is being served until the returned function is called. */
  readonly hold: () => () => void;
  readonly fault: GuestFault;
  /** A flush of this NVDIMM failed. */
  readonly flushFailed: (id: string, errno: string) => void;
  /** The file behind an NVDIMM; a test has another. */
  readonly openStore?: (fd: number, readOnly: boolean) => PmemStore;
}

interface Module {
  readonly device: NvdimmDevice;
  /** While it is attached. */
  file: PmemFile | undefined;
  /** The guest has read of it, in the NFIT or through _FIT. */
  known: boolean;
  /** It is to leave: _FIT no longer has it. */
  leaving: boolean;
}

/**
 * NVDIMMs that are there, come, and go.
 *
 * ACPI has no eject for them, and Linux refuses an NFIT that lacks what an earlier one had. What a guest can do is to
 * let go of all of them, by its driver, and to read _FIT anew. That is what an unplug waits for: from its request on
 * _FIT lacks the NVDIMM, and a guest that reads all of _FIT then, without being told of a change, does not have it.
 */
export class NvdimmHotplug implements LiveKind<NvdimmDevice, NvdimmPlug> {
  readonly onlineWhenAccepted = true;
  /** Undefined on a machine without room for any, as `hints`. */
  readonly registers: AcpiNvdimm | undefined;
  readonly hints: NvdimmHints | undefined;
  readonly slots: number;
  readonly #options: NvdimmHotplugOptions;
  readonly #modules = new Map<number, Module>();
  /** The guest was told that the NFIT has changed, and has not read it since. */
  #told = false;

  /** @throws NemuError NVDIMM for a file that cannot be used. */
  constructor(options: NvdimmHotplugOptions) {
    this.#options = options;
    this.slots = options.room.slots;
    for (const { device, fd } of options.boot) {
      options.room.adopt(device);
      this.#modules.set(device.slot, { device, file: undefined, known: true, leaving: false });
      this.#map(device, fd);
    }
    if (this.slots === 0) return;
    const { memory, hold, fault } = options;
    this.registers = new AcpiNvdimm({
      ...{ memory, hold, fault },
      fit: () => this.structures(),
      nvdimm: (handle) => this.#modules.get(nfitSlot(handle))?.file,
      notify: () => options.raiseGpe(GPE),
      fitRead: () => this.#fitRead(),
    });
    this.hints = new NvdimmHints({ slots: this.slots, hold, flush: (slot, done) => this.#flush(slot, done) });
  }

  /** The NFIT's structures as they are now. */
  structures(): Uint8Array {
    const there = [...this.#modules.values()].filter(({ file, leaving }) => file && !leaving);
    return nfitStructures(
      there
        .map(({ device }) => device)
        .sort((a, b) => a.slot - b.slot)
        .map(({ slot, address, size, node, readonly, share }) => ({
          ...{ slot, address, size, node, readonly },
          hint: readonly || !share ? undefined : HINTS_BASE + slot * HINT_STRIDE,
        })),
      this.#options.description.nvdimmPersistence,
    );
  }

  #flush(slot: number, done: () => void): void {
    const file = this.#modules.get(slot)?.file;
    if (file) file.flush(done);
    else done();
  }

  #fitRead(): void {
    const wasTold = this.#told;
    this.#told = false;
    for (const module of [...this.#modules.values()]) {
      if (!module.file) continue;
      if (!module.leaving) {
        module.known = true;
        this.#options.guest.started(module.device);
      } else if (!wasTold) this.#options.guest.ejected(module.device);
    }
  }

  present(): NvdimmDevice[] {
    return [...this.#modules.values()].filter(({ file }) => file).map(({ device }) => device);
  }

  report(): NvdimmReport[] {
    return [...this.#modules.values()].flatMap(({ device, file }) =>
      file ? [{ ...device, flushes: file.flushes, ...(file.failure !== undefined && { failed: file.failure }) }] : [],
    );
  }

  reserve(request: NvdimmPlug): NvdimmDevice {
    const going = [...this.#modules.values()].find(({ leaving, file }) => leaving && file);
    if (going) {
      const { id } = going.device;
      throw new NemuError('BUSY', `${id} is being unplugged: what the guest reads now must be about that alone.`, {
        hint: 'Wait for that request to settle, then try again.',
      });
    }
    const { file, size, labelSize, readonly, share } = request;
    const other = [...this.#modules.values()].find(
      ({ device }) => (writes(device) || writes(request)) && isSameFile(device.file, file),
    );
    if (other) {
      throw new NemuError('NVDIMM_FILE', `${file} is in use: it is ${other.device.id} of this machine.`, {
        hint: 'It can be several NVDIMMs only where none writes it: readonly=on or share=off.',
      });
    }
    if (size === undefined) throw new Error(`The size of ${file} is not known.`);
    const device = this.#options.room.take(
      { ...request, size },
      'nvdimm',
      (place): NvdimmDevice => ({ kind: 'nvdimm', ...place, file, labelSize, readonly, share }),
    );
    this.#modules.set(device.slot, { device, file: undefined, known: false, leaving: false });
    return device;
  }

  attach(device: NvdimmDevice, { fd }: HostPart = {}): void {
    if (!this.#modules.has(device.slot)) return;
    if (fd === undefined) throw new Error(`${device.file} is not open.`);
    this.#map(device, fd);
    this.#told = true;
    this.registers?.fitChanged(true);
  }

  #map(device: NvdimmDevice, fd: number): void {
    const { vm, memory, flushFailed, poller } = this.#options;
    const { id, slot, address, size, labelSize, readonly } = device;
    const open =
      this.#options.openStore ??
      // The mapping's descriptor has the lock, and the path may name another file by now.
      ((file, readOnly) => openImageFile({ path: `/proc/self/fd/${file}`, readOnly, poller, unlocked: true }));
    const module = this.#modules.get(slot) as Module;
    const lasting = writes(device);
    const file = new PmemFile(open(fd, !lasting), {
      ...{ size, labelSize, lasting },
      failed: (errno) => flushFailed(id, errno),
    });
    try {
      const flags = readonly ? KVM_MEM_READONLY : 0;
      vm.setMemoryRegion(FIRST_MEMSLOT + slot, flags, address, size, memory.hostAddress(address));
    } catch (error) {
      file.close();
      throw error;
    }
    memory.add({ gpa: address, size });
    module.file = file;
  }

  requireRemovable({ id, slot }: NvdimmDevice, force: boolean): void {
    if (force) {
      throw new NemuError(
        'FORCE',
        `${id} cannot be taken by force: the guest would read and write memory that is not there.`,
        { hint: 'Leave force out: the request then says what is to be done in the guest.' },
      );
    }
    if (!this.#told || !this.#modules.get(slot)?.known) return;
    throw new NemuError(
      'BUSY',
      `The guest was told of another NVDIMM and has not read the NFIT since: what it reads next says nothing of ${id}.`,
      { hint: 'Load its driver (modprobe nfit), then try again.' },
    );
  }

  removalNeeds({ slot }: NvdimmDevice): string | undefined {
    return this.#modules.get(slot)?.known ? HOW_TO_LET_GO : undefined;
  }

  requestRemoval(device: NvdimmDevice): void {
    const module = this.#modules.get(device.slot);
    if (!module) return;
    module.leaving = true;
    this.registers?.fitChanged(false);
    if (!module.known) this.#options.guest.ejected(device);
  }

  removalTimedOut({ slot }: NvdimmDevice): void {
    const module = this.#modules.get(slot);
    if (!module) return;
    module.leaving = false;
    this.registers?.fitChanged(false);
  }

  detach(device: NvdimmDevice, done: () => void): void {
    const module = this.#modules.get(device.slot);
    if (!module?.file) {
      done();
      return;
    }
    const { file } = module;
    const { vm, memory } = this.#options;
    module.file = undefined;
    this.registers?.fitChanged(false);
    memory.remove({ gpa: device.address, size: device.size });
    vm.setMemoryRegion(FIRST_MEMSLOT + device.slot, 0, device.address, 0, memory.hostAddress(device.address));
    // What it holds is lasting when it is out of the machine.
    file.flush(() => {});
    file.close(done);
  }

  vacate({ slot }: NvdimmDevice): void {
    this.#modules.delete(slot);
    this.#options.room.vacate(slot);
  }

  /** The guest that comes reads the NFIT at its boot. */
  reset(): void {
    this.#told = false;
    for (const module of this.#modules.values()) {
      module.leaving = false;
      module.known = true;
    }
  }

  /** Waits in place for flushes under way. */
  drain(): void {
    for (const { file } of this.#modules.values()) file?.drain();
  }

  /** What is written is on stable storage, as far as the host can. */
  close(): void {
    for (const module of this.#modules.values()) {
      const { file } = module;
      module.file = undefined;
      if (!file) continue;
      file.flush(() => {});
      while (file.drain());
      file.close();
    }
  }
}
