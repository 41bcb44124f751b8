import { existsSync, readFileSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import type { MachineDescription, MemoryDescription, NumaDescription } from '../client/description.ts';
import type { VirtioMemDescription } from '../client/device_schema.ts';
import { NemuError } from '../client/errors.ts';
import type { GuestMemory } from '../devices/device.ts';
import * as libc from '../ffi/libc.ts';
import { GiB, MiB, memoryEnd, nodeRanges, type RamRange, ramLayout } from './memory_layout.ts';
import { type Residence, residenceOf } from './residence.ts';

/** One memslot's worth of RAM: where the guest and where this process sees it. */
export interface RamRegion extends RamRange {
  readonly hostAddress: number;
}

/** What other threads need to see the same memory. */
export interface MemoryHandle {
  readonly base: number;
  readonly span: number;
  readonly ranges: readonly RamRange[];
}

const KiB = 1024;
/** madvise(2): frees the pages of a shared mapping in its file too. */
const MADV_REMOVE = 9;

const HUGE_SIZE = { '2M': 2 * MiB, '1G': GiB } as const;
const size = (bytes: number) =>
  bytes % GiB === 0 ? `${bytes / GiB} GiB` : bytes >= MiB ? `${Math.round(bytes / MiB)} MiB` : `${bytes} bytes`;

/**
 * A guest's RAM. The whole guest-physical range is reserved once, so that a guest-physical address is an
 * offset into one mapping for as long as the machine lives, and RAM is mapped over the reservation.
 */
export class GuestRam {
  readonly base: number;
  readonly span: number;
  readonly regions: readonly RamRegion[];
  /** File descriptors that back the memory at boot, and those of DIMMs by their address; owned here. */
  readonly #fds: number[];
  readonly #dimms = new Map<number, { readonly size: number; readonly fds: number[] }>();
  readonly #reservation: { address: number; length: number };

  private constructor(
    base: number,
    span: number,
    regions: RamRegion[],
    fds: number[],
    reservation: { address: number; length: number },
  ) {
    this.base = base;
    this.span = span;
    this.regions = regions;
    this.#fds = fds;
    this.#reservation = reservation;
  }

  /**
   * Maps, binds, fills and locks memory as described.
   * @param description memory, type, and nodes with host nodes of their own; the rest goes where `memory` says.
   * @param onProgress bytes that were filled so far, when `prealloc` is on.
   * @throws NemuError `MEMORY_…` with the numbers and the command that mends it.
   */
  static async allocate(
    description: Pick<MachineDescription, 'memory' | 'machine' | 'numa' | 'nvdimms' | 'devices'>,
    onProgress?: (done: number) => void,
  ): Promise<GuestRam> {
    const { memory, machine, numa } = description;
    const ranges = ramLayout(memory.size, machine);
    const span = memoryEnd(description, ranges);
    // A DIMM may have pages of its own size.
    const page = memory.max === undefined ? (memory.hugepages ? HUGE_SIZE[memory.hugepages] : 2 * MiB) : GiB;
    checkAgainstHost(memory);
    const length = span + page;
    const address = mapAnonymous(0, length, 0);
    const base = Math.ceil(address / page) * page;
    const fds: number[] = [];
    try {
      const regions = mapRanges(memory, ranges, base, fds);
      for (const region of regions) advise(memory, region);
      if (numa) bindNodes(numa, ranges, base);
      if (memory.prealloc) await populate(regions, memory.preallocThreads, onProgress);
      if (memory.lock) lock(regions, memory);
      return new GuestRam(base, span, regions, fds, { address, length });
    } catch (error) {
      libc.munmap(address, length);
      for (const fd of fds) libc.close(fd);
      throw error;
    }
  }

  get handle(): MemoryHandle {
    return { base: this.base, span: this.span, ranges: this.regions.map(({ gpa, size }) => ({ gpa, size })) };
  }

  /**
   * Maps a DIMM's memory over the reservation, binds and fills it as described.
   * @throws NemuError `MEMORY_…`; then the reservation is as it was.
   */
  async plug(
    { address, size }: { readonly address: number; readonly size: number },
    memory: DimmMemory,
  ): Promise<void> {
    const fds: number[] = [];
    this.#dimms.set(address, { size, fds });
    try {
      checkAgainstHost(memory);
      const [region] = mapRanges(memory, [{ gpa: address, size }], this.base, fds);
      advise(memory, region);
      if (memory.prealloc) await populate([region], memory.preallocThreads);
      if (memory.lock) lock([region], memory);
    } catch (error) {
      this.unplug(address);
      throw error;
    }
  }

  /**
   * Maps a file's beginning over the reservation.
   * @param fd is this object's from now on. @param shared whether what is stored goes to the file.
   * @throws NemuError MEMORY_FILE; then the reservation is as it was.
   */
  plugFile({ address, size }: { readonly address: number; readonly size: number }, fd: number, shared: boolean): void {
    this.#dimms.set(address, { size, fds: [fd] });
    const hostAddress = this.base + address;
    try {
      const flags = libc.MAP_FIXED | (shared ? libc.MAP_SHARED : libc.MAP_PRIVATE | libc.MAP_NORESERVE);
      libc.mmap(hostAddress, size, libc.PROT_READ | libc.PROT_WRITE, flags, fd, 0);
      libc.madvise(hostAddress, size, libc.MADV_DONTFORK);
      libc.madvise(hostAddress, size, libc.MADV_DONTDUMP);
    } catch (cause) {
      this.unplug(address);
      throw new NemuError('MEMORY_FILE', 'The file cannot be mapped as memory.', {
        hint: 'Some network file systems have no shared mappings: use a file on a local disk.',
        cause,
      });
    }
  }

  /** Gives a DIMM's memory back. Views of it stay: what touches them finds zeros. */
  unplug(address: number): void {
    const dimm = this.#dimms.get(address);
    if (!dimm) return;
    this.#dimms.delete(address);
    mapAnonymous(this.base + address, dimm.size, libc.MAP_FIXED);
    for (const fd of dimm.fds) libc.close(fd);
  }

  /** What of each range the host has in memory, by address. */
  residence(): Residence[] {
    const ranges = [
      ...this.regions.map(({ gpa, size }) => ({ address: gpa, size })),
      ...[...this.#dimms].map(([address, { size }]) => ({ address, size })),
    ];
    return residenceOf(this.base, ranges);
  }

  /** Unmaps everything. No thread may touch a view of it afterwards. */
  free(): void {
    libc.munmap(this.#reservation.address, this.#reservation.length);
    for (const fd of [...this.#fds, ...[...this.#dimms.values()].flatMap((dimm) => dimm.fds)]) libc.close(fd);
  }
}

/** What of a description `plug` reads. */
export type DimmMemory = Omit<MemoryDescription, 'max' | 'slots'>;

/** A virtio-mem device's region as memory of the host, of which nothing is taken until the guest plugs some. */
export function virtioMemMemory({
  size,
  backend,
  hugepages,
  thp,
  hostNodes,
  policy,
}: VirtioMemDescription): DimmMemory {
  return {
    ...{ size, backend, thp, policy, share: false, prealloc: false, preallocThreads: 1, lock: false },
    ...(hugepages && { hugepages }),
    ...(hostNodes && { hostNodes }),
  };
}

const mapAnonymous = (address: number, length: number, flags: number): number =>
  libc.mmap(
    address,
    length,
    libc.PROT_READ | libc.PROT_WRITE,
    libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | libc.MAP_NORESERVE | flags,
    -1,
    0,
  );

function advise(memory: DimmMemory, { hostAddress, size }: RamRegion): void {
  libc.madvise(hostAddress, size, libc.MADV_DONTFORK);
  libc.madvise(hostAddress, size, libc.MADV_DONTDUMP);
  // hugetlbfs refuses advice about transparent huge pages: there is nothing to advise.
  if (!memory.hugepages) libc.madvise(hostAddress, size, memory.thp ? libc.MADV_HUGEPAGE : libc.MADV_NOHUGEPAGE);
  bind(memory, hostAddress, size, '');
}

function checkAgainstHost(memory: DimmMemory): void {
  if (!memory.prealloc && !memory.lock) return;
  const available = availableMemory();
  if (!memory.hugepages && memory.size > available) {
    throw new NemuError(
      'MEMORY_LIMIT',
      `The guest's ${size(memory.size)} are to be held in memory, but the host has ${size(available)} available of ${size(totalmem())}.`,
      { hint: 'Ask for less with --memory, leave out prealloc and lock, or end what uses the memory.' },
    );
  }
}

/** MemAvailable of /proc/meminfo in bytes. */
function availableMemory(): number {
  const line = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'));
  return line ? Number(line[1]) * KiB : freemem();
}

function mapRanges(memory: DimmMemory, ranges: RamRange[], base: number, fds: number[]): RamRegion[] {
  const huge = memory.hugepages ? HUGE_SIZE[memory.hugepages] : 0;
  if (huge) {
    for (const range of ranges) {
      if (range.size % huge !== 0) {
        throw new NemuError(
          'MEMORY_ALIGNMENT',
          `Memory of ${size(memory.size)} is not a multiple of the huge page size, ${size(huge)}.`,
          { hint: `Use a multiple of ${memory.hugepages}.` },
        );
      }
    }
  }
  let fd = -1;
  let flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | libc.MAP_NORESERVE;
  if (memory.backend === 'file') {
    fd = openBacking(memory);
    flags = memory.share ? libc.MAP_SHARED : libc.MAP_PRIVATE;
  } else if (memory.backend === 'memfd' || huge) {
    const hugeFlags = huge ? libc.MFD_HUGETLB | (Math.log2(huge) << libc.MFD_HUGE_SHIFT) : 0;
    fd = libc.memfdCreate('nemu-ram', libc.MFD_ALLOW_SEALING | hugeFlags);
    fds.push(fd);
    libc.ftruncate(fd, memory.size);
    // A peer that holds the descriptor must not be able to take pages from under the guest.
    libc.fcntl(fd, libc.F_ADD_SEALS, libc.F_SEAL_SHRINK | libc.F_SEAL_SEAL);
    flags = libc.MAP_SHARED;
  }
  if (fd >= 0 && !fds.includes(fd)) fds.push(fd);
  let offset = 0;
  return ranges.map((range) => {
    const hostAddress = base + range.gpa;
    try {
      libc.mmap(
        hostAddress,
        range.size,
        libc.PROT_READ | libc.PROT_WRITE,
        flags | libc.MAP_FIXED,
        fd,
        fd < 0 ? 0 : offset,
      );
    } catch (cause) {
      throw mapError(memory, cause);
    }
    offset += range.size;
    return { ...range, hostAddress };
  });
}

function openBacking(memory: DimmMemory): number {
  const path = memory.path as string;
  const existed = existsSync(path);
  let fd: number;
  try {
    fd = libc.open(path, libc.O_RDWR | libc.O_CREAT, 0o600);
  } catch (cause) {
    throw new NemuError('MEMORY_FILE', `The memory file ${path} cannot be opened for reading and writing.`, {
      hint: 'Give a file (or a name in a writable folder) with --memory path=FILE.',
      cause,
    });
  }
  const length = readSize(fd);
  if (length < memory.size && (memory.share || !existed || length === 0)) libc.ftruncate(fd, memory.size);
  else if (length < memory.size) {
    libc.close(fd);
    throw new NemuError(
      'MEMORY_FILE',
      `The memory file ${path} has ${size(length)}, less than the guest's ${size(memory.size)}.`,
      { hint: 'Use share=on to have it extended, or a memory size that it holds.' },
    );
  }
  return fd;
}

const readSize = (fd: number) => Number(libc.raw.lseek(fd, 0, 2));

function mapError(memory: DimmMemory, cause: unknown): NemuError {
  if (memory.hugepages) {
    const bytes = HUGE_SIZE[memory.hugepages];
    const folder = `/sys/kernel/mm/hugepages/hugepages-${bytes / KiB}kB`;
    const read = (name: string) => (existsSync(folder) ? readFileSync(`${folder}/${name}`, 'utf8').trim() : '0');
    const needed = memory.size / bytes;
    return new NemuError(
      'MEMORY_HUGEPAGES',
      `The guest needs ${needed} huge pages of ${memory.hugepages}; the host has ${read('free_hugepages')} free of ${read('nr_hugepages')}.`,
      { hint: `Reserve them: echo ${needed} | sudo tee ${folder}/nr_hugepages`, cause },
    );
  }
  return new NemuError(
    'MEMORY_LIMIT',
    `The host did not map ${size(memory.size)} for the guest; it has ${size(availableMemory())} available of ${size(totalmem())}.`,
    { hint: 'Ask for less with --memory, or raise the limits of `ulimit -v` and vm.overcommit_memory.', cause },
  );
}

/** How memory is spread over the host's nodes. */
type HostPlacement = Pick<MemoryDescription, 'hostNodes' | 'policy'>;

function bind({ hostNodes, policy }: HostPlacement, address: number, length: number, whose: string): void {
  if (!hostNodes) return;
  const mode = { bind: libc.MPOL_BIND, preferred: libc.MPOL_PREFERRED, interleave: libc.MPOL_INTERLEAVE }[policy];
  const mask = hostNodes.reduce((bits, node) => bits | (1n << BigInt(node)), 0n);
  try {
    libc.mbind(address, length, mode, mask);
  } catch (cause) {
    throw new NemuError(
      'MEMORY_NUMA',
      `Memory${whose} cannot be bound (${policy}) to host NUMA node${hostNodes.length > 1 ? 's' : ''} ${hostNodes.join(', ')}.`,
      { hint: `This host's nodes are in /sys/devices/system/node/online: ${onlineNodes()}.`, cause },
    );
  }
}

function bindNodes({ nodes }: NumaDescription, ranges: readonly RamRange[], base: number): void {
  const sizes = nodes.map((node) => node.memory);
  for (const { node, gpa, size } of nodeRanges(sizes, ranges)) {
    bind(nodes[node], base + gpa, size, ` of the guest's node ${node}`);
  }
}

function onlineNodes(): string {
  const path = '/sys/devices/system/node/online';
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : '0';
}

/** Touches every page from several threads at once (libuv's pool runs the calls). */
async function populate(regions: RamRegion[], threads: number, onProgress?: (done: number) => void): Promise<void> {
  const STEP = 256 * MiB;
  const pieces = regions.flatMap((region) =>
    Array.from({ length: Math.ceil(region.size / STEP) }, (_, i) => ({
      address: region.hostAddress + i * STEP,
      length: Math.min(STEP, region.size - i * STEP),
    })),
  );
  let next = 0;
  let done = 0;
  const worker = async () => {
    while (next < pieces.length) {
      const { address, length } = pieces[next++];
      const result = await new Promise<number>((resolve, reject) =>
        libc.raw.madvise.async(address, length, libc.MADV_POPULATE_WRITE, (error: unknown, value: number) =>
          error ? reject(error) : resolve(value),
        ),
      );
      // errno belongs to the pool's thread: ask again here, where a failure can be named.
      if (result < 0) libc.madvise(address, length, libc.MADV_POPULATE_WRITE);
      done += length;
      onProgress?.(done);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.max(1, threads) }, worker));
  } catch (cause) {
    throw new NemuError(
      'MEMORY_LIMIT',
      `Only ${size(done)} of the guest's memory could be filled; the host has ${size(availableMemory())} available.`,
      { hint: 'Ask for less with --memory, or leave out prealloc.', cause },
    );
  }
}

function lock(regions: RamRegion[], memory: DimmMemory): void {
  try {
    for (const region of regions) libc.mlock(region.hostAddress, region.size);
  } catch (cause) {
    const limit = libc.getrlimit(libc.RLIMIT_MEMLOCK);
    throw new NemuError(
      'MEMORY_LOCK',
      `The guest's ${size(memory.size)} cannot be locked: this process may lock ${Number.isFinite(limit) ? size(limit) : 'any amount'}, and the host has ${size(availableMemory())} available.`,
      {
        hint: `Raise the limit and start again: sudo prlimit --memlock=${memory.size + 64 * MiB} --pid $$`,
        cause,
      },
    );
  }
}

/** One thread's view of guest memory: a guest-physical address is an index. One a thread, for life. */
export class GuestMemoryView implements GuestMemory {
  readonly bytes: Uint8Array;
  readonly #base: number;
  #ranges: readonly RamRange[] = [];

  constructor(handle: MemoryHandle) {
    this.bytes = new Uint8Array(libc.viewOf(handle.base, handle.span));
    this.#base = handle.base;
    for (const range of handle.ranges) this.add(range);
  }

  /** Where this process sees a guest-physical address. */
  hostAddress(gpa: number): number {
    return this.#base + gpa;
  }

  /** Memory was plugged. What stands side by side is one range: a buffer may reach over the border. */
  add({ gpa, size }: RamRange): void {
    let [start, end] = [gpa, gpa + size];
    const others: RamRange[] = [];
    for (const range of this.#ranges) {
      if (range.gpa > end || range.gpa + range.size < start) others.push(range);
      else [start, end] = [Math.min(start, range.gpa), Math.max(end, range.gpa + range.size)];
    }
    this.#ranges = [...others, { gpa: start, size: end - start }];
  }

  /** Memory was unplugged. */
  remove({ gpa, size }: RamRange): void {
    const end = gpa + size;
    this.#ranges = this.#ranges.flatMap((range) => {
      const rangeEnd = range.gpa + range.size;
      if (range.gpa >= end || rangeEnd <= gpa) return [range];
      return [
        ...(range.gpa < gpa ? [{ gpa: range.gpa, size: gpa - range.gpa }] : []),
        ...(rangeEnd > end ? [{ gpa: end, size: rangeEnd - end }] : []),
      ];
    });
  }

  #isRam(gpa: number, length: number): boolean {
    for (const range of this.#ranges) {
      if (gpa >= range.gpa && gpa + length <= range.gpa + range.size) return true;
    }
    return false;
  }

  read(gpa: number, into: Uint8Array): boolean {
    if (!this.#isRam(gpa, into.length)) return false;
    into.set(this.bytes.subarray(gpa, gpa + into.length));
    return true;
  }

  write(gpa: number, from: Uint8Array): boolean {
    if (!this.#isRam(gpa, from.length)) return false;
    this.bytes.set(from, gpa);
    return true;
  }

  slice(gpa: number, length: number): Uint8Array | undefined {
    return this.#isRam(gpa, length) ? this.bytes.subarray(gpa, gpa + length) : undefined;
  }
}

/**
 * Gives the host back what a guest does not use; what the kernel does not take, huge pages above all, is kept.
 * Addresses and lengths are those of RAM, in multiples of 4 KiB.
 */
export function discardRam(
  handle: MemoryHandle,
  { share, backend }: { readonly share: boolean; readonly backend: 'anonymous' | 'memfd' | 'file' },
  gpa: number,
  length: number,
): void {
  // A private mapping of a file would have the file's bytes again: they stay as they are.
  if (backend === 'file' && !share) return;
  const shared = share || backend !== 'anonymous';
  libc.raw.madvise(handle.base + gpa, length, shared ? MADV_REMOVE : libc.MADV_DONTNEED);
}
