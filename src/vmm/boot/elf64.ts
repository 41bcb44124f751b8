/** A plain 64-bit ELF file, entered in long mode as Linux's vmlinux expects it (boot.rst, "64-bit boot protocol"). */
import { NemuError } from '../../client/errors.ts';
import { bootParams } from './boot_params.ts';
import { type Elf, loadSegments, physicalEntry } from './elf.ts';
import type { BootPlan, BootRequest } from './plan.ts';
import { LAST_32BIT, PlanBuilder, ZERO_PAGE } from './plan_builder.ts';

/** COMMAND_LINE_SIZE of x86 without the NUL: Linux cuts off what is longer, without a word. */
const LINUX_CMDLINE = 2047;

/** @throws NemuError see {@link planBoot} */
export function planElf64(request: BootRequest, elf: Elf): BootPlan {
  const { kernelName: name, memoryMap, rsdp } = request;
  if (elf.bits !== 64) {
    throw new NemuError(
      'KERNEL_FORMAT',
      `${name} is a 32-bit ELF file without a Multiboot header or a PVH note: there is no way to start it.`,
      { hint: 'Expected a bzImage, an ELF64 file, an ELF file with a PVH note, or one with a Multiboot 1 header.' },
    );
  }
  const plan = new PlanBuilder(request);
  const entry = plan.putLongMode();
  const cmdline = plan.putCmdline(request.cmdline);
  if (Buffer.byteLength(request.cmdline) > LINUX_CMDLINE) {
    plan.warn(`The command line is longer than ${LINUX_CMDLINE} bytes: Linux ignores the rest.`);
  }
  plan.reserve(ZERO_PAGE, 0x1000, 'the boot parameters');
  loadSegments(plan, elf, name);
  const rip = physicalEntry(plan, elf, elf.entry, name);
  const initrd = plan.putInitrd([LAST_32BIT, Number.MAX_SAFE_INTEGER], 'top');
  plan.fill(ZERO_PAGE, bootParams({ loadAddress: rip, cmdline, initrd, memoryMap, rsdp }));
  return plan.finish('elf64', { ...entry, rip, rsi: ZERO_PAGE });
}
