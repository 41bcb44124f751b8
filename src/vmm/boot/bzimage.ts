/** Linux bzImage by the 64-bit boot protocol (Documentation/arch/x86/boot.rst, protocol 2.12 and later). */
import { NemuError } from '../../client/errors.ts';
import {
  BOOT_FLAG,
  bootParams,
  HDRS,
  LOADED_HIGH,
  SETUP_HEADER_LIMIT,
  SETUP_HEADER_START,
  setup_header,
} from './boot_params.ts';
import type { BootPlan, BootRequest } from './plan.ts';
import { LAST_32BIT, PlanBuilder, ZERO_PAGE } from './plan_builder.ts';
import { bytesText, hex } from './text.ts';

const SECTOR = 512;
const DEFAULT_SETUP_SECTS = 4;
/** First protocol with `xloadflags`. */
const VERSION_2_12 = 0x020c;
const XLF_KERNEL_64 = 1 << 0;
const XLF_CAN_BE_LOADED_ABOVE_4G = 1 << 1;
/** `startup_64` stands here in the protected-mode kernel. */
const ENTRY64 = 0x200;

type SetupHeader = ReturnType<typeof setup_header.on>;

const headerOf = (kernel: Uint8Array): SetupHeader =>
  setup_header.on(new DataView(kernel.buffer, kernel.byteOffset, kernel.length));

/** Whether a file has Linux's setup header; it may still be too short for the rest. */
export function isBzImage(kernel: Uint8Array): boolean {
  if (kernel.length < setup_header.offsets.version) return false;
  const { boot_flag, header } = headerOf(kernel);
  return boot_flag === BOOT_FLAG && header === HDRS;
}

/** @throws NemuError see {@link planBoot} */
export function planBzImage(request: BootRequest): BootPlan {
  const { kernel, kernelName: name } = request;
  if (kernel.length < setup_header.size) {
    throw new NemuError(
      'KERNEL_TRUNCATED',
      `${name} is a Linux kernel cut off in its setup header: it has ${kernel.length} bytes.`,
      { hint: 'Copy or download the file again.' },
    );
  }
  const header = headerOf(kernel);
  requireSupported(header, name);
  const code = protectedModeCode(kernel, header, name);

  const plan = new PlanBuilder(request);
  const entry = plan.putLongMode();
  const cmdline = plan.putCmdline(request.cmdline, header.cmdline_size);
  plan.reserve(ZERO_PAGE, 0x1000, 'the boot parameters');

  const loadAddress = findLoadAddress(plan, header, code.length, name);
  plan.put(loadAddress, code, 'the kernel');
  const { init_size } = header;
  // Decompression happens in place: nothing else may be there until the kernel has taken over.
  if (init_size > code.length) plan.reserve(loadAddress + code.length, init_size - code.length, 'the kernel');

  const above4g = header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G;
  const initrd = plan.putInitrd(
    above4g ? [header.initrd_addr_max, LAST_32BIT, Number.MAX_SAFE_INTEGER] : [header.initrd_addr_max],
    'top',
  );

  const headerEnd = Math.min(setup_header.offsets.header + (header.jump >>> 8), SETUP_HEADER_LIMIT, kernel.length);
  const page = bootParams({
    header: kernel.subarray(SETUP_HEADER_START, Math.max(headerEnd, setup_header.size)),
    loadAddress,
    cmdline,
    initrd,
    memoryMap: request.memoryMap,
    rsdp: request.rsdp,
  });
  plan.fill(ZERO_PAGE, page);
  return plan.finish('bzimage', { ...entry, rip: loadAddress + ENTRY64, rsi: ZERO_PAGE });
}

function requireSupported(header: SetupHeader, name: string): void {
  const protocol = `${header.version >>> 8}.${String(header.version & 0xff).padStart(2, '0')}`;
  if (header.version < VERSION_2_12) {
    throw new NemuError(
      'KERNEL_FORMAT',
      `${name} is a Linux kernel of boot protocol ${protocol}; the 64-bit entry needs 2.12 or later (Linux 3.8).`,
      { hint: 'Use a newer kernel.' },
    );
  }
  if (!(header.xloadflags & XLF_KERNEL_64)) {
    throw new NemuError(
      'KERNEL_FORMAT',
      `${name} is a Linux kernel without a 64-bit entry point: it is a 32-bit one, and guests here are 64-bit.`,
      { hint: 'Use a kernel built with CONFIG_64BIT=y.' },
    );
  }
  if (!(header.loadflags & LOADED_HIGH)) {
    throw new NemuError('KERNEL_FORMAT', `${name} is a zImage (loaded at 64 KiB), which has no 64-bit entry point.`, {
      hint: 'Use arch/x86/boot/bzImage of the kernel build.',
    });
  }
}

function protectedModeCode(kernel: Uint8Array, header: SetupHeader, name: string): Uint8Array {
  const start = ((header.setup_sects || DEFAULT_SETUP_SECTS) + 1) * SECTOR;
  const size = header.syssize * 16;
  if (size <= ENTRY64) {
    throw new NemuError(
      'KERNEL_FORMAT',
      `${name} says in its setup header that its code has ${size} bytes, too few for the entry point at ${hex(ENTRY64)}.`,
    );
  }
  if (start + size > kernel.length) {
    throw new NemuError(
      'KERNEL_TRUNCATED',
      `${name} should have at least ${start + size} bytes by its setup header, but has ${kernel.length}.`,
      { hint: 'Copy or download the file again.' },
    );
  }
  return kernel.subarray(start, start + size);
}

/**
 * The address that the kernel prefers, or the lowest one above it that has room: below it, a kernel would
 * move itself there. Nothing is loaded above 4 GiB, which the first page tables do not map.
 */
function findLoadAddress(plan: PlanBuilder, header: SetupHeader, codeSize: number, name: string): number {
  const size = Math.max(header.init_size, codeSize);
  const preferred = Number(header.pref_address);
  const inReach = preferred + size <= LAST_32BIT + 1;
  if (inReach && plan.layout.isFree(preferred, size)) return preferred;
  if (inReach && header.relocatable_kernel) {
    const least = header.min_alignment < 32 ? 2 ** header.min_alignment : 0;
    for (const align of [header.kernel_alignment, least]) {
      if (align < 0x1000 || (align & (align - 1)) !== 0) continue;
      const at = plan.layout.find({ size, align, min: preferred, max: LAST_32BIT, from: 'bottom' });
      if (at !== undefined) return at;
    }
  }
  throw new NemuError(
    'KERNEL_TOO_BIG',
    `${name} needs ${bytesText(size)} of RAM from ${hex(preferred)} on, below 4 GiB, to unpack itself, but the guest's RAM is ${plan.layout.describe()}.`,
    { hint: 'Give the guest more memory, for example --memory 512M.' },
  );
}
