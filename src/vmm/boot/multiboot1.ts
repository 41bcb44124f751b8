/** Multiboot Specification version 0.6.96 ("Multiboot 1"). */
import { NemuError } from '../../client/errors.ts';
import { at, struct } from '../../ffi/struct.ts';
import { E820_TYPES } from './boot_params.ts';
import { type Elf, loadSegments, physicalEntry } from './elf.ts';
import type { BootPlan, BootRequest, E820Entry } from './plan.ts';
import { LAST_32BIT, MULTIBOOT_INFO, PlanBuilder } from './plan_builder.ts';
import { hex } from './text.ts';

/** Section 3.1.1; `header_addr` and what follows count only with MULTIBOOT_AOUT_KLUDGE. */
const multiboot_header = struct('multiboot_header', {
  magic: 'u32',
  flags: 'u32',
  checksum: 'u32',
  header_addr: 'u32',
  load_addr: 'u32',
  load_end_addr: 'u32',
  bss_end_addr: 'u32',
  entry_addr: 'u32',
});

/** Section 3.3, up to the last field that is filled here. */
const multiboot_info = struct(
  'multiboot_info',
  {
    flags: 'u32',
    mem_lower: 'u32',
    mem_upper: 'u32',
    boot_device: 'u32',
    cmdline: 'u32',
    mods_count: 'u32',
    mods_addr: 'u32',
    mmap_length: at(44, 'u32'),
    mmap_addr: at(48, 'u32'),
    boot_loader_name: at(64, 'u32'),
  },
  120,
);

const multiboot_mod_list = struct('multiboot_mod_list', {
  mod_start: 'u32',
  mod_end: 'u32',
  string: 'u32',
  reserved: 'u32',
});

const MULTIBOOT_SEARCH = 8192;
const MULTIBOOT_HEADER_MAGIC = 0x1badb002;
const MULTIBOOT_BOOTLOADER_MAGIC = 0x2badb002;
const MULTIBOOT_VIDEO_MODE = 1 << 2;
const MULTIBOOT_AOUT_KLUDGE = 1 << 16;
/** Requirements that are met: modules on page boundaries, memory information, and (with a warning) video mode. */
const REQUIREMENTS_MET = 0b111;
const REQUIREMENTS = 0xffff;

const INFO_MEMORY = 1 << 0;
const INFO_CMDLINE = 1 << 2;
const INFO_MODS = 1 << 3;
const INFO_MEM_MAP = 1 << 6;
const INFO_BOOT_LOADER_NAME = 1 << 9;

const MiB = 2 ** 20;
/** An entry of the memory map: `size` (of the rest), 64-bit address and length, type. */
const MMAP_ENTRY = 24;
const MAX_MMAP = 1024;
const LOADER_NAME = 'nemu\0';

export interface MultibootHeader {
  /** Where in the file it was found. */
  readonly offset: number;
  readonly flags: number;
  /** With MULTIBOOT_AOUT_KLUDGE: where to load what, as physical addresses. */
  readonly addresses?: {
    readonly header: number;
    readonly load: number;
    readonly loadEnd: number;
    readonly bssEnd: number;
    readonly entry: number;
  };
}

/** The header, on a 4-byte boundary in the first 8192 bytes; undefined without a whole and valid one. */
export function findMultibootHeader(file: Uint8Array): MultibootHeader | undefined {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const end = Math.min(file.length, MULTIBOOT_SEARCH);
  for (let offset = 0; offset + 12 <= end; offset += 4) {
    if (view.getUint32(offset, true) !== MULTIBOOT_HEADER_MAGIC) continue;
    const { magic, flags, checksum } = multiboot_header.on(view, offset);
    if ((magic + flags + checksum) % 2 ** 32 !== 0) continue;
    if (!(flags & MULTIBOOT_AOUT_KLUDGE)) return { offset, flags };
    if (offset + multiboot_header.size > end) return undefined;
    const { header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr } = multiboot_header.on(view, offset);
    return {
      offset,
      flags,
      addresses: {
        header: header_addr,
        load: load_addr,
        loadEnd: load_end_addr,
        bssEnd: bss_end_addr,
        entry: entry_addr,
      },
    };
  }
  return undefined;
}

/** @throws NemuError see {@link planBoot} */
export function planMultiboot1(request: BootRequest, header: MultibootHeader, elf?: Elf): BootPlan {
  const { kernelName: name, memoryMap } = request;
  const unknown = header.flags & REQUIREMENTS & ~REQUIREMENTS_MET;
  if (unknown) {
    throw new NemuError(
      'KERNEL_FORMAT',
      `${name} has a Multiboot header that requires features ${hex(unknown)} of the loader, which the specification (0.6.96) does not define.`,
    );
  }
  const plan = new PlanBuilder(request);
  if (header.flags & MULTIBOOT_VIDEO_MODE) {
    plan.warn(`${name} asks for a video mode; there is no display, so it is started without one.`);
  }
  const entry = plan.putProtectedMode();
  // The first word is the file's name, as in QEMU: programs take it for argv[0].
  const cmdline = plan.putCmdline(request.cmdline ? `${name} ${request.cmdline}` : name);
  plan.reserve(MULTIBOOT_INFO, infoSize(memoryMap), 'the Multiboot information');

  let rip: number;
  let end: number;
  if (header.addresses) {
    ({ rip, end } = loadByAddresses(plan, request, header.offset, header.addresses));
  } else if (elf) {
    end = loadSegments(plan, elf, name);
    rip = physicalEntry(plan, elf, elf.entry, name);
  } else {
    throw new NemuError(
      'KERNEL_FORMAT',
      `${name} has a Multiboot header without load addresses (flag 16), so it should be an ELF file, but it is not.`,
    );
  }
  // Right behind the kernel, where small kernels have it mapped.
  const initrd = plan.putInitrd([LAST_32BIT], 'bottom', Math.max(end, MiB));
  plan.fill(MULTIBOOT_INFO, buildInfo(cmdline, initrd, memoryMap));
  return plan.finish('multiboot1', { ...entry, rip, rax: MULTIBOOT_BOOTLOADER_MAGIC, rbx: MULTIBOOT_INFO });
}

function loadByAddresses(
  plan: PlanBuilder,
  { kernel, kernelName: name }: BootRequest,
  headerOffset: number,
  addresses: NonNullable<MultibootHeader['addresses']>,
): { rip: number; end: number } {
  const { header, load, bssEnd, entry } = addresses;
  const bad = (why: string) => new NemuError('KERNEL_FORMAT', `${name} has a malformed Multiboot header: ${why}.`);
  if (load > header) throw bad(`load_addr ${hex(load)} is above header_addr ${hex(header)}`);
  const start = headerOffset - (header - load);
  if (start < 0) throw bad(`load_addr ${hex(load)} stands for a place ${-start} bytes before the start of the file`);
  // A load_end_addr of 0 means all of the file.
  const loadEnd = addresses.loadEnd || load + (kernel.length - start);
  if (loadEnd <= load) throw bad(`load_end_addr ${hex(loadEnd)} is not above load_addr ${hex(load)}`);
  const size = loadEnd - load;
  if (start + size > kernel.length) {
    throw new NemuError(
      'KERNEL_TRUNCATED',
      `${name} should have ${start + size} bytes by its Multiboot header, but has ${kernel.length}.`,
      { hint: 'Copy, download or build the file again.' },
    );
  }
  if (bssEnd !== 0 && bssEnd < loadEnd) throw bad(`bss_end_addr ${hex(bssEnd)} is below load_end_addr ${hex(loadEnd)}`);
  const end = Math.max(loadEnd, bssEnd);
  if (entry < load || entry >= end) throw bad(`entry_addr ${hex(entry)} is outside of what is loaded`);
  plan.load(load, kernel.subarray(start, start + size), end - load, 'its image');
  return { rip: entry, end };
}

const MODULE_OFFSET = multiboot_info.size;
const NAME_OFFSET = MODULE_OFFSET + multiboot_mod_list.size;
const MMAP_OFFSET = NAME_OFFSET + 16;

function infoSize(memoryMap: readonly E820Entry[]): number {
  if (memoryMap.length > MAX_MMAP) {
    throw new NemuError(
      'MEMORY_MAP',
      `The memory map has ${memoryMap.length} entries, more than the ${MAX_MMAP} that a Multiboot kernel is given.`,
    );
  }
  return MMAP_OFFSET + memoryMap.length * MMAP_ENTRY;
}

function buildInfo(
  cmdline: number,
  initrd: { gpa: number; size: number } | undefined,
  memoryMap: readonly E820Entry[],
): Uint8Array {
  const bytes = new Uint8Array(infoSize(memoryMap));
  const view = new DataView(bytes.buffer);
  const info = multiboot_info.on(view);
  info.flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODS | INFO_MEM_MAP | INFO_BOOT_LOADER_NAME;
  info.mem_lower = kibFrom(memoryMap, 0);
  info.mem_upper = kibFrom(memoryMap, MiB);
  info.cmdline = cmdline;
  info.boot_loader_name = MULTIBOOT_INFO + NAME_OFFSET;
  bytes.set(Buffer.from(LOADER_NAME), NAME_OFFSET);
  if (initrd) {
    info.mods_count = 1;
    info.mods_addr = MULTIBOOT_INFO + MODULE_OFFSET;
    const module = multiboot_mod_list.on(view, MODULE_OFFSET);
    module.mod_start = initrd.gpa;
    module.mod_end = initrd.gpa + initrd.size;
    // Kernels read the string without a look at its address: the NUL behind the loader's name is an empty one.
    module.string = info.boot_loader_name + LOADER_NAME.length - 1;
  }
  info.mmap_addr = MULTIBOOT_INFO + MMAP_OFFSET;
  info.mmap_length = memoryMap.length * MMAP_ENTRY;
  for (const [i, { gpa, size, type }] of memoryMap.entries()) {
    const offset = MMAP_OFFSET + i * MMAP_ENTRY;
    view.setUint32(offset, MMAP_ENTRY - 4, true);
    view.setBigUint64(offset + 4, BigInt(gpa), true);
    view.setBigUint64(offset + 12, BigInt(size), true);
    view.setUint32(offset + 20, E820_TYPES[type], true);
  }
  return bytes;
}

/** KiB of RAM without a gap from an address on, as 32 bits can say it. */
function kibFrom(memoryMap: readonly E820Entry[], from: number): number {
  const entry = memoryMap.find(({ gpa, size, type }) => type === 'ram' && gpa <= from && gpa + size > from);
  return entry ? Math.min(Math.floor((entry.gpa + entry.size - from) / 1024), LAST_32BIT) : 0;
}
