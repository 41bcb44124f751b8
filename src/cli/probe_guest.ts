import { Assembler, elf64 } from '../vmm/x86/assembler.ts';

/** Port of isa-debug-exit, which ends the probe. */
const DEBUG_EXIT = 0xf4;
/** COM1's holding and line status registers. */
const THR = 0x3f8;
const LSR = 0x3fd;
/** A port with a device whose reads are forwarded to the machine thread: the POST code port. */
const FORWARDED = 0x80;

export const PROBE_BASE = 0x10_0000;
/** Port reads of each kind that the probe makes. */
export const PROBE_READS = 500;

const IDT = 0x20_0000;
const STACK = 0x21_0000;
const SCRATCH = 0x22_0000;
const GDT_CODE = 0x10;

/**
 * A guest of 64-bit kernel code that tries what stock kernels need and weak hosts lack: `int3` delivered
 * through the IDT, `lock cmpxchg16b`, `xsave` and `xrstor`. After each step it prints a letter, so that the
 * last one tells how far it came; then it reads ports, to time exits, and ends through isa-debug-exit.
 */
export function probeGuest(): Uint8Array {
  const asm = new Assembler(PROBE_BASE);
  asm.cli().movImm('rsp', STACK).print(THR, 'A');

  // IDT entry 3: an interrupt gate to the handler (SDM volume 3, figure 6-8).
  asm.movLabel('rax', 'handler').movImm('rbx', IDT + 3 * 16);
  asm.storeSized(2, 'rbx', 0, 'rax').movImm('rcx', GDT_CODE).storeSized(2, 'rbx', 2, 'rcx');
  asm.movImm('rcx', 0x8e00).storeSized(2, 'rbx', 4, 'rcx');
  asm.movLabel('rax', 'handler').bytes(0x48, 0xc1, 0xe8, 16); // shr rax, 16
  asm.storeSized(2, 'rbx', 6, 'rax').movImm('rcx', 0).storeSized(4, 'rbx', 8, 'rcx').storeSized(4, 'rbx', 12, 'rcx');
  asm.movLabel('rax', 'idtr').lidt('rax');
  asm.movImm('r15', 0).int3();
  asm.cmpImm('r15', 1).jumpIf('nz', 'done').print(THR, 'B');

  asm.movImm('rsi', SCRATCH).movImm('rax', 0).store('rsi', 0, 'rax').store('rsi', 8, 'rax');
  asm.movImm('rdx', 0).movImm('rbx', 7).movImm('rcx', 9).lockCmpxchg16b('rsi');
  asm.load('rax', 'rsi', 8).cmpImm('rax', 9).jumpIf('nz', 'done').print(THR, 'C');

  // CR4.OSFXSR and OSXSAVE.
  asm
    .movCr4ToRax()
    .orImm('rax', (1 << 9) | (1 << 18))
    .movRaxToCr4();
  asm.movImm('rax', 3).movImm('rdx', 0).movImm('rsi', SCRATCH).xsave('rsi');
  asm.movImm('rax', 3).movImm('rdx', 0).xrstor('rsi').print(THR, 'D');

  for (const [name, port, letter] of [
    ['local', LSR, 'E'],
    ['forwarded', FORWARDED, 'F'],
  ] as const) {
    asm.movImm('rbx', PROBE_READS).movImm('rdx', port);
    asm.label(name).in(1).subImm('rbx', 1).jumpIf('nz', name).print(THR, letter);
  }

  asm.label('done').outByte(DEBUG_EXIT, 0).label('halt').hlt().jump('halt');
  asm.label('handler').movImm('r15', 1).iretq();
  asm
    .align(8)
    .label('idtr')
    .u16(4 * 16 - 1)
    .u64(BigInt(IDT));
  return elf64(asm.assemble(), PROBE_BASE);
}

/** What each letter proves, and what is said when it is missing. */
export const PROBE_STEPS = [
  { letter: 'A', name: '64-bit kernel code runs', lack: 'not even 64-bit kernel code runs' },
  { letter: 'B', name: 'int3 is delivered in kernel mode', lack: 'int3 is not delivered in kernel mode' },
  { letter: 'C', name: 'lock cmpxchg16b works in kernel mode', lack: 'lock cmpxchg16b fails in kernel mode' },
  { letter: 'D', name: 'xsave and xrstor work in kernel mode', lack: 'xsave or xrstor fails in kernel mode' },
  { letter: 'E', name: 'port exits are served on the vCPU thread', lack: 'port exits are not served' },
  { letter: 'F', name: 'port exits are forwarded to the machine thread', lack: 'port exits are not forwarded' },
] as const;
