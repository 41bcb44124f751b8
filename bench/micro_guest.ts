/**
 * Micro-guests for us and for QEMU alike: PVH images (boot protocol of xen/include/public/arch-x86/hvm/start_info.h)
 * whose code runs in ring 3 with IOPL 3, where it runs at full speed even under a KVM that emulates guest kernel mode.
 */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const BASE = 0x10_0000;
const STACK = 0x9_0000;
export const COM1 = 0x3f8;
export const DEBUG_EXIT = 0xf4;
/** RFLAGS.IOPL = 3, and the bit that is always set. */
const IOPL_3 = 0x3002;
const IA32_SYSENTER_CS = 0x174;
const KERNEL_CODE = 0x08;
const USER_DATA = 0x23;

const bytes32 = (value: number) => [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
const bytes16 = (value: number) => [value & 0xff, value >> 8];

/** 32-bit protected mode code, straight enough to be written as bytes; jumps go backwards only. */
export class Code32 {
  readonly bytes: number[] = [];

  get here(): number {
    return this.bytes.length;
  }

  put(...values: number[]): this {
    this.bytes.push(...values);
    return this;
  }

  /** mov dx, port; mov al, value; out dx, al */
  outByte(port: number, value: number): this {
    return this.put(0x66, 0xba, ...bytes16(port), 0xb0, value, 0xee);
  }

  text(value: string): this {
    for (const character of value) this.outByte(COM1, character.charCodeAt(0));
    return this;
  }

  /** Runs `body` `count` times; it must leave ecx alone. */
  repeat(count: number, body: (code: Code32) => void): this {
    this.put(0xb9, ...bytes32(count));
    const start = this.here;
    body(this);
    this.put(0x49); // dec ecx
    return this.put(0x0f, 0x85, ...bytes32(start - (this.here + 6))); // jnz start
  }

  /** Keeps the time stamp counter in esi and edi. */
  keepTime(): this {
    return this.put(0x0f, 0x31, 0x89, 0xc6, 0x89, 0xd7);
  }

  /** Sends what the counter has moved since `keepTime` through COM1: eight bytes, the least first. */
  sendTime(): this {
    this.put(0x0f, 0x31, 0x29, 0xf0, 0x19, 0xfa); // rdtsc; sub eax, esi; sbb edx, edi
    this.put(0x89, 0xc6, 0x89, 0xd7); // mov esi, eax; mov edi, edx
    this.put(0x66, 0xba, ...bytes16(COM1));
    for (const from of [0xf0, 0xf8]) {
      this.put(0x89, from); // mov eax, esi or edi
      for (let byte = 0; byte < 4; byte++) this.put(0xee, 0xc1, 0xe8, 8); // out dx, al; shr eax, 8
    }
    return this;
  }

  /** Ends the machine: isa-debug-exit. */
  end(): this {
    return this.outByte(DEBUG_EXIT, 0).put(0xeb, 0xfe);
  }
}

/** Where a compiled program is linked to. */
const PROGRAM = 0x11_0000;

/**
 * A PVH image that runs a C program of bench/guests in ring 3, from its function `start` on.
 * @param defines macros, by name
 * @throws Error with what the compiler said
 */
export function compiledGuest(source: string, defines: Readonly<Record<string, number>>): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-bench-guest-'));
  try {
    const run = (command: string, args: readonly string[]) => execFileSync(command, args, { stdio: 'pipe' });
    const elf = join(folder, 'guest.elf');
    const flat = join(folder, 'guest.bin');
    run('gcc', [
      ...['-m32', '-march=i686', '-O2', '-Wall', '-Werror', '-ffreestanding', '-fno-pic'],
      ...['-fno-stack-protector', '-fno-strict-aliasing'],
      ...['-fcf-protection=none', '-fno-asynchronous-unwind-tables', '-nostdlib', '-static'],
      ...[`-Wl,-Ttext=0x${PROGRAM.toString(16)}`, '-Wl,--build-id=none', '-Wl,-e,start'],
      ...Object.entries(defines).map(([name, value]) => `-D${name}=${value}`),
      ...[fileURLToPath(new URL(`guests/${source}`, import.meta.url)), '-o', elf],
    ]);
    run('objcopy', ['-O', 'binary', '--set-section-flags', '.bss=alloc,load,contents', elf, flat]);
    const jump = [0xb8, ...readFileSync(elf).subarray(24, 28), 0xff, 0xe0]; // mov eax, e_entry; jmp eax
    return microGuest((code) => code.put(...jump), readFileSync(flat));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A PVH image that runs `user` in ring 3, with `program` behind it at its address. */
export function microGuest(user: (code: Code32) => void, program?: Uint8Array): Uint8Array {
  const gdt = [
    ...[0, 0],
    ...[0x0000ffff, 0x00cf9b00], // ring 0 code
    ...[0x0000ffff, 0x00cf9300], // ring 0 data
    ...[0x0000ffff, 0x00cffb00], // ring 3 code
    ...[0x0000ffff, 0x00cff300], // ring 3 data
  ].flatMap(bytes32);
  const body = new Code32();
  body.put(0x66, 0xb8, ...bytes16(USER_DATA), 0x8e, 0xd8, 0x8e, 0xc0); // mov ax; mov ds, ax; mov es, ax
  user(body);
  const entry = (userStart: number, gdtr: number) => [
    ...[0x0f, 0x01, 0x15, ...bytes32(gdtr)], // lgdt [gdtr]
    ...[0xbc, ...bytes32(STACK)], // mov esp, stack
    ...[0x68, ...bytes32(IOPL_3), 0x9d], // push eflags; popf
    // sysexit, since a KVM that emulates guest kernel mode has no iret: IA32_SYSENTER_CS is the ring 0 code.
    ...[0xb9, ...bytes32(IA32_SYSENTER_CS), 0xb8, ...bytes32(KERNEL_CODE), 0x31, 0xd2, 0x0f, 0x30],
    ...[0xba, ...bytes32(userStart), 0xb9, ...bytes32(STACK), 0x0f, 0x35],
  ];
  const entryLength = entry(0, 0).length;
  const userStart = BASE + entryLength;
  const gdtStart = userStart + body.bytes.length;
  const gdtr = gdtStart + gdt.length;
  const code = Uint8Array.from([
    ...entry(userStart, gdtr),
    ...body.bytes,
    ...gdt,
    ...bytes16(gdt.length - 1),
    ...bytes32(gdtStart),
  ]);
  if (!program) return pvhImage(code);
  const all = new Uint8Array(PROGRAM - BASE + program.length);
  all.set(code);
  all.set(program, PROGRAM - BASE);
  return pvhImage(all);
}

/** An ELF64 of one loadable segment and the Xen note that says where it is entered in 32-bit mode. */
function pvhImage(code: Uint8Array): Uint8Array {
  const XEN_ELFNOTE_PHYS32_ENTRY = 18;
  const NOTE = 24;
  const headers = 64 + 2 * 56 + NOTE;
  const file = Buffer.alloc(headers + code.length);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  file.writeUInt16LE(2, 16); // ET_EXEC
  file.writeUInt16LE(62, 18); // EM_X86_64
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(BigInt(BASE), 24);
  file.writeBigUInt64LE(64n, 32); // e_phoff
  file.writeUInt16LE(64, 52);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(2, 56); // e_phnum
  const header = (at: number, type: number, offset: number, address: number, size: number) => {
    file.writeUInt32LE(type, at);
    file.writeUInt32LE(7, at + 4);
    for (const [index, value] of [offset, address, address, size, size, 4].entries()) {
      file.writeBigUInt64LE(BigInt(value), at + 8 + index * 8);
    }
  };
  const noteAt = 64 + 2 * 56;
  header(64, 1, headers, BASE, code.length); // PT_LOAD
  header(64 + 56, 4, noteAt, 0, NOTE); // PT_NOTE
  file.writeUInt32LE(4, noteAt);
  file.writeUInt32LE(8, noteAt + 4);
  file.writeUInt32LE(XEN_ELFNOTE_PHYS32_ENTRY, noteAt + 8);
  file.write('Xen\0', noteAt + 12, 'latin1');
  file.writeBigUInt64LE(BigInt(BASE), noteAt + 16);
  file.set(code, headers);
  return file;
}
