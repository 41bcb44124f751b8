/** KVM's three kinds of file descriptor, with errors that say what was asked for. */
import { NemuError } from '../client/errors.ts';
import type { HostReport } from '../client/machine_client.ts';
import { Arena, type Pinned } from '../ffi/arena.ts';
import * as kvm from '../ffi/kvm/common.ts';
import {
  check,
  close,
  errno,
  errnoName,
  MAP_SHARED,
  mmap,
  munmap,
  O_RDWR,
  open,
  PROT_READ,
  PROT_WRITE,
  raw,
  SystemError,
  viewOf,
} from '../ffi/libc.ts';

/** What of KVM this machine cannot do without. */
const REQUIRED = [
  'IRQCHIP',
  'USER_MEMORY',
  'EXT_CPUID',
  'MP_STATE',
  'IRQFD',
  'IOEVENTFD',
  'PIT2',
  'ADJUST_CLOCK',
  'IMMEDIATE_EXIT',
  'IRQ_ROUTING',
  'SIGNAL_MSI',
] as const satisfies readonly (keyof typeof kvm.KVM_CAP)[];

/** /dev/kvm. */
export class Kvm {
  readonly fd: number;
  /** Bytes of one vCPU's kvm_run mapping. */
  readonly vcpuMmapSize: number;

  /** @throws NemuError `KVM_MISSING`, `KVM_PERMISSION` or `KVM_TOO_OLD`. */
  constructor(path = '/dev/kvm') {
    try {
      this.fd = open(path, O_RDWR);
    } catch (cause) {
      const code = cause instanceof SystemError ? cause.code : '';
      if (code === 'EACCES' || code === 'EPERM') {
        throw new NemuError('KVM_PERMISSION', `This user may not open ${path}.`, {
          hint: `Add the user to the group that owns it: sudo usermod -aG kvm "$USER", then log in again. Or use --on lab.`,
          cause,
        });
      }
      throw new NemuError('KVM_MISSING', `${path} cannot be opened (${code}).`, {
        hint: 'Load kvm_intel or kvm_amd and turn virtualization on in the firmware, or use --on lab. `nemu doctor` says more.',
        cause,
      });
    }
    const version = check(raw.ioctl(this.fd, kvm.KVM_GET_API_VERSION, 0), 'ioctl', 'KVM_GET_API_VERSION');
    const lacking = REQUIRED.filter((name) => this.extension(kvm.KVM_CAP[name]) <= 0);
    if (version !== kvm.KVM_API_VERSION || lacking.length > 0) {
      close(this.fd);
      throw new NemuError(
        'KVM_TOO_OLD',
        version !== kvm.KVM_API_VERSION
          ? `${path} speaks version ${version} of KVM's interface, not ${kvm.KVM_API_VERSION}.`
          : `${path} lacks ${lacking.map((name) => `KVM_CAP_${name}`).join(', ')}.`,
        { hint: 'Use a newer host kernel, or --on lab.' },
      );
    }
    this.vcpuMmapSize = check(raw.ioctl(this.fd, kvm.KVM_GET_VCPU_MMAP_SIZE, 0), 'ioctl', 'KVM_GET_VCPU_MMAP_SIZE');
  }

  /** KVM_CHECK_EXTENSION: 0 when absent, else the capability's value. */
  extension(capability: number): number {
    return raw.ioctl(this.fd, kvm.KVM_CHECK_EXTENSION, capability);
  }

  createVm(): KvmVm {
    let fd: number;
    do fd = raw.ioctl(this.fd, kvm.KVM_CREATE_VM, 0);
    while (fd < 0 && errnoName(errno()) === 'EINTR');
    return new KvmVm(check(fd, 'ioctl', 'KVM_CREATE_VM'), this.vcpuMmapSize);
  }

  close(): void {
    close(this.fd);
  }
}

/** An ioctl on a structure in an arena. */
class KvmObject {
  readonly fd: number;
  readonly arena: Arena;

  constructor(fd: number, arena: Arena) {
    this.fd = fd;
    this.arena = arena;
  }

  /** @throws SystemError naming the request. */
  ioctl(request: number, name: string, argument: number | Pinned = 0): number {
    return check(
      raw.ioctl(this.fd, request, typeof argument === 'number' ? argument : argument.address),
      'ioctl',
      name,
      typeof argument === 'number' ? argument : 'struct',
    );
  }
}

/** A piece of guest-physical memory that KVM knows. Addresses and sizes in bytes, page aligned. */
export interface Memslot {
  readonly flags: number;
  readonly gpa: number;
  readonly size: number;
  readonly hostAddress: number;
}

/** A virtual machine's descriptor. Its owner is the machine thread. */
export class KvmVm extends KvmObject {
  readonly #mmapSize: number;
  readonly #region;
  readonly #dirtyLog;
  readonly #irq;
  readonly #zone;
  readonly #msi;
  readonly #ioeventfd;
  readonly #irqfd;
  readonly #slots = new Map<number, Memslot>();
  #logsDirtyPages = false;
  #routes = 0;
  #ioeventfds = 0;
  #irqfds = 0;

  constructor(fd: number, mmapSize: number) {
    super(fd, new Arena(64 * 1024));
    this.#mmapSize = mmapSize;
    this.#msi = this.arena.struct(kvm.kvm_msi);
    this.#ioeventfd = this.arena.struct(kvm.kvm_ioeventfd);
    this.#irqfd = this.arena.struct(kvm.kvm_irqfd);
    this.#region = this.arena.struct(kvm.kvm_userspace_memory_region);
    this.#dirtyLog = this.arena.struct(kvm.kvm_dirty_log);
    this.#irq = this.arena.struct(kvm.kvm_irq_level);
    this.#zone = this.arena.struct(kvm.kvm_coalesced_mmio_zone);
  }

  /** KVM_SET_USER_MEMORY_REGION; `size` 0 deletes the slot. Addresses and sizes in bytes, page aligned. */
  setMemoryRegion(slot: number, flags: number, gpa: number, size: number, hostAddress: number): void {
    this.#setRegion(slot, { flags, gpa, size, hostAddress });
    if (size > 0) this.#slots.set(slot, { flags, gpa, size, hostAddress });
    else this.#slots.delete(slot);
  }

  #setRegion(slot: number, { flags, gpa, size, hostAddress }: Memslot): void {
    const region = this.#region.fields;
    region.slot = slot;
    region.flags = flags | (this.#logsDirtyPages ? kvm.KVM_MEM_LOG_DIRTY_PAGES : 0);
    region.guest_phys_addr = BigInt(gpa);
    region.memory_size = BigInt(size);
    region.userspace_addr = BigInt(hostAddress);
    this.ioctl(kvm.KVM_SET_USER_MEMORY_REGION, `KVM_SET_USER_MEMORY_REGION slot ${slot}`, this.#region);
  }

  get memslots(): ReadonlyMap<number, Memslot> {
    return this.#slots;
  }

  /** Has the first write to each page noted, in what is there and in what comes. */
  logDirtyPages(on: boolean): void {
    if (on === this.#logsDirtyPages) return;
    this.#logsDirtyPages = on;
    for (const [slot, memslot] of this.#slots) this.#setRegion(slot, memslot);
  }

  /** KVM_GET_DIRTY_LOG: pages written to since the last call, as one bit each at `bitmap`; it has whole 64-bit words. */
  dirtyLog(slot: number, bitmap: number): void {
    this.#dirtyLog.fields.slot = slot;
    this.#dirtyLog.fields.dirty_bitmap = BigInt(bitmap);
    this.ioctl(kvm.KVM_GET_DIRTY_LOG, `KVM_GET_DIRTY_LOG slot ${slot}`, this.#dirtyLog);
  }

  /** KVM_IRQ_LINE: a GSI's level. */
  setIrq(gsi: number, level: boolean): void {
    this.#irq.fields.irq = gsi;
    this.#irq.fields.level = level ? 1 : 0;
    this.ioctl(kvm.KVM_IRQ_LINE, `KVM_IRQ_LINE gsi ${gsi}`, this.#irq);
  }

  /** KVM_SIGNAL_MSI: a message-signalled interrupt, as a device's write of `data` to `address` would make it. */
  signalMsi(address: number, data: number): void {
    const { fields } = this.#msi;
    fields.address_lo = address >>> 0;
    fields.address_hi = Math.floor(address / 2 ** 32);
    fields.data = data >>> 0;
    // KVM answers 0 when no vCPU took the interrupt, and EINVAL for an address that is none of the local APICs':
    // both are the guest's own doing.
    raw.ioctl(this.fd, kvm.KVM_SIGNAL_MSI, this.#msi.address);
  }

  /**
   * KVM_IOEVENTFD: guest writes of `size` bytes at `address` add to `fd` instead of leaving the kernel.
   * @param value the one value whose writes do so; any, without it.
   */
  ioeventfd(fd: number, address: number, size: number, space: 'pio' | 'mmio', on: boolean, value?: number): void {
    const { fields } = this.#ioeventfd;
    fields.datamatch = BigInt(value ?? 0);
    fields.addr = BigInt(address);
    fields.len = size;
    fields.fd = fd;
    fields.flags =
      (space === 'pio' ? kvm.KVM_IOEVENTFD_FLAG_PIO : 0) |
      (value === undefined ? 0 : kvm.KVM_IOEVENTFD_FLAG_DATAMATCH) |
      (on ? 0 : kvm.KVM_IOEVENTFD_FLAG_DEASSIGN);
    this.ioctl(kvm.KVM_IOEVENTFD, `KVM_IOEVENTFD 0x${address.toString(16)}`, this.#ioeventfd);
    this.#ioeventfds += on ? 1 : -1;
  }

  /** KVM_IRQFD: a write to `fd` is an edge of the GSI. */
  irqfd(fd: number, gsi: number, on: boolean): void {
    const { fields } = this.#irqfd;
    fields.fd = fd;
    fields.gsi = gsi;
    fields.flags = on ? 0 : kvm.KVM_IRQFD_FLAG_DEASSIGN;
    this.ioctl(kvm.KVM_IRQFD, `KVM_IRQFD gsi ${gsi}`, this.#irqfd);
    this.#irqfds += on ? 1 : -1;
  }

  /** KVM_SET_GSI_ROUTING: replaces all routes. @param routes each with the words of the header's union. */
  setRouting(routes: readonly { gsi: number; type: number; words: readonly number[] }[]): void {
    const header = kvm.kvm_irq_routing.size;
    const entry = kvm.kvm_irq_routing_entry.size;
    const arena = new Arena(header + routes.length * entry);
    try {
      const table = arena.alloc(header + routes.length * entry);
      table.view.setUint32(0, routes.length, true);
      for (const [index, { gsi, type, words }] of routes.entries()) {
        const at = header + index * entry;
        table.view.setUint32(at, gsi, true);
        table.view.setUint32(at + 4, type, true);
        for (const [i, word] of words.entries()) table.view.setUint32(at + 16 + 4 * i, word, true);
      }
      this.ioctl(kvm.KVM_SET_GSI_ROUTING, `KVM_SET_GSI_ROUTING of ${routes.length} routes`, table);
      this.#routes = routes.length;
    } finally {
      arena.free();
    }
  }

  /** Writes to one port gather in the coalesced ring instead of leaving the kernel. */
  coalescePort(port: number, size: number, on: boolean): void {
    const zone = this.#zone;
    zone.fields.addr = BigInt(port);
    zone.fields.size = size;
    zone.fields.pio = 1;
    if (on) this.ioctl(kvm.KVM_REGISTER_COALESCED_MMIO, 'KVM_REGISTER_COALESCED_MMIO', zone);
    else this.ioctl(kvm.KVM_UNREGISTER_COALESCED_MMIO, 'KVM_UNREGISTER_COALESCED_MMIO', zone);
  }

  /** @param id the vCPU's id, which is its APIC id on x86. */
  createVcpu(id: number): KvmVcpu {
    const fd = this.ioctl(kvm.KVM_CREATE_VCPU, `KVM_CREATE_VCPU id ${id}`, id);
    return new KvmVcpu(fd, this.#mmapSize);
  }

  /** What there is in KVM of what was asked for here. */
  get inUse(): Pick<HostReport, 'memorySlots' | 'routes' | 'ioeventfds' | 'irqfds'> {
    const [memorySlots, routes, ioeventfds, irqfds] = [this.#slots.size, this.#routes, this.#ioeventfds, this.#irqfds];
    return { memorySlots, routes, ioeventfds, irqfds };
  }

  close(): void {
    close(this.fd);
    this.arena.free();
  }
}

/** A vCPU's descriptor and its kvm_run mapping. The machine thread calls it only while the vCPU is out of the guest. */
export class KvmVcpu extends KvmObject {
  /** Address and length of the kvm_run mapping. */
  readonly runAddress: number;
  readonly run: DataView;
  readonly runBytes: Uint8Array;
  readonly #mmapSize: number;

  constructor(fd: number, mmapSize: number) {
    super(fd, new Arena(16 * 1024));
    this.#mmapSize = mmapSize;
    this.runAddress = mmap(0, mmapSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const mapping = viewOf(this.runAddress, mmapSize);
    this.run = new DataView(mapping);
    this.runBytes = new Uint8Array(mapping);
  }

  /** Has the next KVM_RUN return EINTR at once. */
  requestImmediateExit(): void {
    Atomics.store(this.runBytes, kvm.kvm_run.offsets.immediate_exit, 1);
  }

  /** The vCPU's thread must have ended. */
  close(): void {
    munmap(this.runAddress, this.#mmapSize);
    close(this.fd);
    this.arena.free();
  }
}
