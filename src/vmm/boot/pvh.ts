/** PVH: Xen's "x86/HVM direct boot ABI" (xen/include/public/arch-x86/hvm/start_info.h, docs/misc/pvh.pandoc). */
import { NemuError } from '../../client/errors.ts';
import { struct } from '../../ffi/struct.ts';
import { E820_TYPES } from './boot_params.ts';
import { type Elf, type ElfSegment, loadSegments } from './elf.ts';
import type { BootPlan, BootRequest } from './plan.ts';
import { LAST_32BIT, PlanBuilder, START_INFO } from './plan_builder.ts';
import { hex } from './text.ts';

const hvm_start_info = struct('hvm_start_info', {
  magic: 'u32',
  version: 'u32',
  flags: 'u32',
  nr_modules: 'u32',
  modlist_paddr: 'u64',
  cmdline_paddr: 'u64',
  rsdp_paddr: 'u64',
  memmap_paddr: 'u64',
  memmap_entries: 'u32',
  reserved: 'u32',
});

const hvm_modlist_entry = struct('hvm_modlist_entry', {
  paddr: 'u64',
  size: 'u64',
  cmdline_paddr: 'u64',
  reserved: 'u64',
});

const hvm_memmap_table_entry = struct('hvm_memmap_table_entry', {
  addr: 'u64',
  size: 'u64',
  type: 'u32',
  reserved: 'u32',
});

/** "xEn3" with the top bit of the E set. */
const XEN_HVM_START_MAGIC_VALUE = 0x336ec578;
/** The first version with a memory map. */
const START_INFO_VERSION = 1;
const XEN_ELFNOTE_PHYS32_ENTRY = 18;
const NOTE_NAME = 'Xen\0';
/** Notes of real kernels take a few hundred bytes. */
const MAX_NOTE_BYTES = 1 << 20;

const MODLIST = START_INFO + hvm_start_info.size;
const MEMMAP = MODLIST + hvm_modlist_entry.size;
const MAX_MEMMAP = Math.floor((0x1000 - hvm_start_info.size - hvm_modlist_entry.size) / hvm_memmap_table_entry.size);

/**
 * The entry point that a PVH note names, or undefined without one.
 * @throws NemuError `KERNEL_FORMAT` for a note of a wrong size, or absurdly many notes.
 */
export function findPvhEntry(elf: Elf, name: string): bigint | undefined {
  const total = elf.notes.reduce((sum, { bytes }) => sum + bytes.length, 0);
  if (total > MAX_NOTE_BYTES) {
    throw new NemuError('KERNEL_FORMAT', `${name} has ${total} bytes of ELF notes, more than any kernel.`);
  }
  for (const segment of elf.notes) {
    const descriptor = findNote(segment);
    if (!descriptor) continue;
    const view = new DataView(descriptor.buffer, descriptor.byteOffset, descriptor.length);
    if (descriptor.length === 4) return BigInt(view.getUint32(0, true));
    if (descriptor.length === 8) return view.getBigUint64(0, true);
    throw new NemuError(
      'KERNEL_FORMAT',
      `${name} has a PVH note (XEN_ELFNOTE_PHYS32_ENTRY) of ${descriptor.length} bytes: expected an address of 4 or 8.`,
    );
  }
  return undefined;
}

/** The descriptor of the segment's PVH note. A note that runs out of the segment ends the search. */
function findNote({ bytes, align }: ElfSegment): Uint8Array | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const boundary = align === 8n ? 8 : 4;
  const pad = (offset: number) => Math.ceil(offset / boundary) * boundary;
  let at = 0;
  while (at + 12 <= bytes.length) {
    const nameSize = view.getUint32(at, true);
    const size = view.getUint32(at + 4, true);
    const type = view.getUint32(at + 8, true);
    const descriptor = pad(at + 12 + nameSize);
    if (descriptor + size > bytes.length) return undefined;
    if (
      type === XEN_ELFNOTE_PHYS32_ENTRY &&
      nameSize === NOTE_NAME.length &&
      Buffer.from(bytes.subarray(at + 12, at + 12 + nameSize)).toString('latin1') === NOTE_NAME
    ) {
      return bytes.subarray(descriptor, descriptor + size);
    }
    at = pad(descriptor + size);
  }
  return undefined;
}

/** @throws NemuError see {@link planBoot} */
export function planPvh(request: BootRequest, elf: Elf, entryPoint: bigint): BootPlan {
  const { kernelName: name, memoryMap } = request;
  const inside = elf.load.some(
    ({ paddr, memorySize }) => entryPoint >= paddr && entryPoint < paddr + memorySize && entryPoint <= LAST_32BIT,
  );
  if (!inside) {
    throw new NemuError(
      'KERNEL_FORMAT',
      `${name} has a PVH note that names the entry point ${hex(entryPoint)}, outside of what the file loads below 4 GiB.`,
    );
  }
  if (memoryMap.length > MAX_MEMMAP) {
    throw new NemuError(
      'MEMORY_MAP',
      `The memory map has ${memoryMap.length} entries, more than the ${MAX_MEMMAP} that fit the PVH start info.`,
    );
  }
  const plan = new PlanBuilder(request);
  const entry = plan.putProtectedMode();
  const cmdline = plan.putCmdline(request.cmdline);
  plan.reserve(START_INFO, 0x1000, 'the PVH start info');
  loadSegments(plan, elf, name);
  // Linux keeps only the lower half of the module's address.
  const initrd = plan.putInitrd([LAST_32BIT], 'top');

  const page = new Uint8Array(MEMMAP - START_INFO + memoryMap.length * hvm_memmap_table_entry.size);
  const view = new DataView(page.buffer);
  const info = hvm_start_info.on(view);
  info.magic = XEN_HVM_START_MAGIC_VALUE;
  info.version = START_INFO_VERSION;
  info.cmdline_paddr = BigInt(cmdline);
  info.rsdp_paddr = BigInt(request.rsdp);
  info.memmap_paddr = BigInt(MEMMAP);
  info.memmap_entries = memoryMap.length;
  if (initrd) {
    info.nr_modules = 1;
    info.modlist_paddr = BigInt(MODLIST);
    const module = hvm_modlist_entry.on(view, MODLIST - START_INFO);
    module.paddr = BigInt(initrd.gpa);
    module.size = BigInt(initrd.size);
  }
  for (const [i, { gpa, size, type }] of memoryMap.entries()) {
    const fields = hvm_memmap_table_entry.on(view, MEMMAP - START_INFO + i * hvm_memmap_table_entry.size);
    fields.addr = BigInt(gpa);
    fields.size = BigInt(size);
    fields.type = E820_TYPES[type];
  }
  plan.fill(START_INFO, page);
  return plan.finish('pvh', { ...entry, rip: Number(entryPoint), rbx: START_INFO });
}
