/**
 * The part of Linux's `struct boot_params`, the "zero page", that a loader fills
 * (Documentation/arch/x86/zero-page.rst and boot.rst; names of asm/bootparam.h).
 */
import { NemuError } from '../../client/errors.ts';
import { at, struct } from '../../ffi/struct.ts';
import type { E820Entry, E820Type } from './plan.ts';

/** `struct setup_header`, with offsets from the start of the file and of the zero page alike. */
export const setup_header = struct('boot_params', {
  setup_sects: at(0x1f1, 'u8'),
  syssize: at(0x1f4, 'u32'),
  vid_mode: at(0x1fa, 'u16'),
  boot_flag: at(0x1fe, 'u16'),
  jump: at(0x200, 'u16'),
  header: at(0x202, 'u32'),
  version: at(0x206, 'u16'),
  type_of_loader: at(0x210, 'u8'),
  loadflags: at(0x211, 'u8'),
  code32_start: at(0x214, 'u32'),
  ramdisk_image: at(0x218, 'u32'),
  ramdisk_size: at(0x21c, 'u32'),
  cmd_line_ptr: at(0x228, 'u32'),
  initrd_addr_max: at(0x22c, 'u32'),
  kernel_alignment: at(0x230, 'u32'),
  relocatable_kernel: at(0x234, 'u8'),
  min_alignment: at(0x235, 'u8'),
  xloadflags: at(0x236, 'u16'),
  cmdline_size: at(0x238, 'u32'),
  setup_data: at(0x250, 'u64'),
  pref_address: at(0x258, 'u64'),
  init_size: at(0x260, 'u32'),
});

const boot_params = struct(
  'boot_params',
  {
    ...setup_header.fields,
    acpi_rsdp_addr: at(0x070, 'u64'),
    ext_ramdisk_image: at(0x0c0, 'u32'),
    ext_ramdisk_size: at(0x0c4, 'u32'),
    e820_entries: at(0x1e8, 'u8'),
  },
  0x1000,
);

/** Both layouts, for the test that compares them with the kernel's header. */
export const bootParamsLayout = boot_params;

export const SETUP_HEADER_START = 0x1f1;
/** The header may grow up to here; `edd_mbr_sig_buffer` follows. */
export const SETUP_HEADER_LIMIT = 0x290;
/** "HdrS" */
export const HDRS = 0x53726448;
export const BOOT_FLAG = 0xaa55;
export const LOADED_HIGH = 1 << 0;

const E820_TABLE = 0x2d0;
const E820_ENTRY_SIZE = 20;
const E820_MAX_ENTRIES_ZEROPAGE = 128;
/** A loader without an assigned number. */
const LOADER_UNDEFINED = 0xff;
const VIDEO_MODE_NORMAL = 0xffff;

export const E820_TYPES: Readonly<Record<E820Type, number>> = {
  ram: 1,
  reserved: 2,
  acpi: 3,
  nvs: 4,
  unusable: 5,
  pmem: 7,
};

export interface BootParamsOptions {
  /** The kernel's own setup header, from offset 0x1f1 on; none for a plain vmlinux. */
  readonly header?: Uint8Array;
  /** Where the protected-mode kernel is. */
  readonly loadAddress: number;
  readonly cmdline: number;
  readonly initrd: { readonly gpa: number; readonly size: number } | undefined;
  readonly memoryMap: readonly E820Entry[];
  readonly rsdp: number;
}

/**
 * A filled zero page. What stays zero says that there is nothing: no video, no disks, no EFI.
 * @throws NemuError `MEMORY_MAP` when there are more than 128 entries.
 */
export function bootParams(options: BootParamsOptions): Uint8Array {
  const page = new Uint8Array(boot_params.size);
  const view = new DataView(page.buffer);
  const fields = boot_params.on(view);
  if (options.header) {
    page.set(options.header, SETUP_HEADER_START);
  } else {
    // A vmlinux has no header of its own: what a bzImage of the oldest protocol with 64-bit fields would say.
    fields.boot_flag = BOOT_FLAG;
    fields.header = HDRS;
    fields.version = 0x020c;
    fields.loadflags = LOADED_HIGH;
    fields.kernel_alignment = 0x200000;
  }
  fields.type_of_loader = LOADER_UNDEFINED;
  fields.vid_mode = VIDEO_MODE_NORMAL;
  fields.code32_start = options.loadAddress;
  fields.cmd_line_ptr = options.cmdline;
  fields.setup_data = 0n;
  fields.acpi_rsdp_addr = BigInt(options.rsdp);
  const { gpa, size } = options.initrd ?? { gpa: 0, size: 0 };
  fields.ramdisk_image = gpa % 2 ** 32;
  fields.ext_ramdisk_image = Math.floor(gpa / 2 ** 32);
  fields.ramdisk_size = size % 2 ** 32;
  fields.ext_ramdisk_size = Math.floor(size / 2 ** 32);

  const { memoryMap } = options;
  if (memoryMap.length > E820_MAX_ENTRIES_ZEROPAGE) {
    throw new NemuError(
      'MEMORY_MAP',
      `The memory map has ${memoryMap.length} entries, more than the ${E820_MAX_ENTRIES_ZEROPAGE} that fit Linux's boot parameters.`,
    );
  }
  fields.e820_entries = memoryMap.length;
  for (const [i, entry] of memoryMap.entries()) {
    const offset = E820_TABLE + i * E820_ENTRY_SIZE;
    view.setBigUint64(offset, BigInt(entry.gpa), true);
    view.setBigUint64(offset + 8, BigInt(entry.size), true);
    view.setUint32(offset + 16, E820_TYPES[entry.type], true);
  }
  return page;
}
