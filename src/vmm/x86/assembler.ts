/**
 * A very small x86-64 assembler for guests of a few dozen instructions: the probe, the micro-guests of the
 * tests and the benchmark's. It knows the instructions that those use and nothing else. Encodings: Intel SDM
 * volume 2.
 */

export const REGISTERS = {
  rax: 0,
  rcx: 1,
  rdx: 2,
  rbx: 3,
  rsp: 4,
  rbp: 5,
  rsi: 6,
  rdi: 7,
  r8: 8,
  r9: 9,
  r10: 10,
  r11: 11,
  r12: 12,
  r13: 13,
  r14: 14,
  r15: 15,
} as const;
export type Register = keyof typeof REGISTERS;

const CONDITIONS = { o: 0, no: 1, b: 2, ae: 3, z: 4, nz: 5, be: 6, a: 7, s: 8, ns: 9, l: 12, ge: 13 } as const;
export type Condition = keyof typeof CONDITIONS;

interface Fixup {
  readonly at: number;
  readonly label: string;
  /** `rel32` counts from the end of the field; `abs64` is the address. */
  readonly kind: 'rel32' | 'abs64';
}

export class Assembler {
  readonly base: number;
  #bytes: number[] = [];
  readonly #labels = new Map<string, number>();
  readonly #fixups: Fixup[] = [];

  /** @param base guest address of the first byte. */
  constructor(base: number) {
    this.base = base;
  }

  get here(): number {
    return this.base + this.#bytes.length;
  }

  bytes(...values: number[]): this {
    this.#bytes.push(...values);
    return this;
  }

  u16(value: number): this {
    return this.bytes(value & 0xff, (value >>> 8) & 0xff);
  }

  u32(value: number): this {
    return this.bytes(value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, (value >>> 24) & 0xff);
  }

  u64(value: bigint): this {
    return this.u32(Number(value & 0xffffffffn)).u32(Number((value >> 32n) & 0xffffffffn));
  }

  text(value: string): this {
    return this.bytes(...Buffer.from(value));
  }

  align(boundary: number): this {
    while (this.here % boundary !== 0) this.bytes(0);
    return this;
  }

  space(count: number): this {
    for (let i = 0; i < count; i++) this.#bytes.push(0);
    return this;
  }

  label(name: string): this {
    if (this.#labels.has(name)) throw new Error(`The label ${name} is there already.`);
    this.#labels.set(name, this.here);
    return this;
  }

  addressOf(name: string): number {
    const address = this.#labels.get(name);
    if (address === undefined) throw new Error(`There is no label ${name}.`);
    return address;
  }

  #rel32(label: string): this {
    this.#fixups.push({ at: this.#bytes.length, label, kind: 'rel32' });
    return this.u32(0);
  }

  /** REX.W with the extension bits of the two registers. */
  #rexW(reg: number, rm: number): this {
    return this.bytes(0x48 | ((reg >> 3) << 2) | (rm >> 3));
  }

  #modrm(mod: number, reg: number, rm: number): this {
    return this.bytes((mod << 6) | ((reg & 7) << 3) | (rm & 7));
  }

  /** [base] with a 32-bit displacement: one form for all base registers. */
  #memory(reg: number, base: number, displacement: number): this {
    this.#modrm(2, reg, base);
    if ((base & 7) === 4) this.bytes(0x24);
    return this.u32(displacement);
  }

  movImm(to: Register, value: number | bigint): this {
    const reg = REGISTERS[to];
    return this.#rexW(0, reg)
      .bytes(0xb8 | (reg & 7))
      .u64(BigInt.asUintN(64, BigInt(value)));
  }

  movLabel(to: Register, label: string): this {
    const reg = REGISTERS[to];
    this.#rexW(0, reg).bytes(0xb8 | (reg & 7));
    this.#fixups.push({ at: this.#bytes.length, label, kind: 'abs64' });
    return this.u64(0n);
  }

  mov(to: Register, from: Register): this {
    const [rm, reg] = [REGISTERS[to], REGISTERS[from]];
    return this.#rexW(reg, rm).bytes(0x89).#modrm(3, reg, rm);
  }

  /** 64-bit load from [base + displacement]. */
  load(to: Register, base: Register, displacement = 0): this {
    const [reg, rm] = [REGISTERS[to], REGISTERS[base]];
    return this.#rexW(reg, rm).bytes(0x8b).#memory(reg, rm, displacement);
  }

  /** 64-bit store to [base + displacement]. */
  store(base: Register, displacement: number, from: Register): this {
    const [reg, rm] = [REGISTERS[from], REGISTERS[base]];
    return this.#rexW(reg, rm).bytes(0x89).#memory(reg, rm, displacement);
  }

  /** Load of 1, 2 or 4 bytes, zero-extended. */
  loadSized(size: 1 | 2 | 4, to: Register, base: Register, displacement = 0): this {
    const [reg, rm] = [REGISTERS[to], REGISTERS[base]];
    const rex = 0x40 | ((reg >> 3) << 2) | (rm >> 3);
    if (size === 4) return this.bytes(rex, 0x8b).#memory(reg, rm, displacement);
    return this.bytes(rex, 0x0f, size === 1 ? 0xb6 : 0xb7).#memory(reg, rm, displacement);
  }

  storeSized(size: 1 | 2 | 4, base: Register, displacement: number, from: Register): this {
    const [reg, rm] = [REGISTERS[from], REGISTERS[base]];
    if (size === 2) this.bytes(0x66);
    return this.bytes(0x40 | ((reg >> 3) << 2) | (rm >> 3), size === 1 ? 0x88 : 0x89).#memory(reg, rm, displacement);
  }

  #arithmetic(extension: number, to: Register, value: number): this {
    const rm = REGISTERS[to];
    return this.#rexW(0, rm).bytes(0x81).#modrm(3, extension, rm).u32(value);
  }

  addImm(to: Register, value: number): this {
    return this.#arithmetic(0, to, value);
  }

  subImm(to: Register, value: number): this {
    return this.#arithmetic(5, to, value);
  }

  andImm(to: Register, value: number): this {
    return this.#arithmetic(4, to, value);
  }

  orImm(to: Register, value: number): this {
    return this.#arithmetic(1, to, value);
  }

  cmpImm(to: Register, value: number): this {
    return this.#arithmetic(7, to, value);
  }

  add(to: Register, from: Register): this {
    const [rm, reg] = [REGISTERS[to], REGISTERS[from]];
    return this.#rexW(reg, rm).bytes(0x01).#modrm(3, reg, rm);
  }

  cmp(left: Register, right: Register): this {
    const [rm, reg] = [REGISTERS[left], REGISTERS[right]];
    return this.#rexW(reg, rm).bytes(0x39).#modrm(3, reg, rm);
  }

  jump(label: string): this {
    return this.bytes(0xe9).#rel32(label);
  }

  jumpIf(condition: Condition, label: string): this {
    return this.bytes(0x0f, 0x80 | CONDITIONS[condition]).#rel32(label);
  }

  call(label: string): this {
    return this.bytes(0xe8).#rel32(label);
  }

  ret(): this {
    return this.bytes(0xc3);
  }

  /** out to the port in dx, from al, ax or eax. */
  out(size: 1 | 2 | 4): this {
    if (size === 2) this.bytes(0x66);
    return this.bytes(size === 1 ? 0xee : 0xef);
  }

  /** in from the port in dx, to al, ax or eax. */
  in(size: 1 | 2 | 4): this {
    if (size === 2) this.bytes(0x66);
    return this.bytes(size === 1 ? 0xec : 0xed);
  }

  /** One byte to a port. */
  outByte(port: number, value: number): this {
    return this.movImm('rdx', port).movImm('rax', value).out(1);
  }

  /** Every byte of a text to a port. */
  print(port: number, value: string): this {
    this.movImm('rdx', port);
    for (const byte of Buffer.from(value)) this.movImm('rax', byte).out(1);
    return this;
  }

  repOutsb(): this {
    return this.bytes(0xf3, 0x6e);
  }

  repInsb(): this {
    return this.bytes(0xf3, 0x6c);
  }

  hlt(): this {
    return this.bytes(0xf4);
  }

  cli(): this {
    return this.bytes(0xfa);
  }

  sti(): this {
    return this.bytes(0xfb);
  }

  int3(): this {
    return this.bytes(0xcc);
  }

  iretq(): this {
    return this.bytes(0x48, 0xcf);
  }

  lidt(base: Register): this {
    return this.bytes(0x40 | (REGISTERS[base] >> 3), 0x0f, 0x01).#memory(3, REGISTERS[base], 0);
  }

  lgdt(base: Register): this {
    return this.bytes(0x40 | (REGISTERS[base] >> 3), 0x0f, 0x01).#memory(2, REGISTERS[base], 0);
  }

  /** lock cmpxchg16b [base] */
  lockCmpxchg16b(base: Register): this {
    return this.bytes(0xf0).#rexW(1, REGISTERS[base]).bytes(0x0f, 0xc7).#memory(1, REGISTERS[base], 0);
  }

  xsave(base: Register): this {
    return this.bytes(0x40 | (REGISTERS[base] >> 3), 0x0f, 0xae).#memory(4, REGISTERS[base], 0);
  }

  xrstor(base: Register): this {
    return this.bytes(0x40 | (REGISTERS[base] >> 3), 0x0f, 0xae).#memory(5, REGISTERS[base], 0);
  }

  movCr4ToRax(): this {
    return this.bytes(0x0f, 0x20, 0xe0);
  }

  movRaxToCr4(): this {
    return this.bytes(0x0f, 0x22, 0xe0);
  }

  cpuid(): this {
    return this.bytes(0x0f, 0xa2);
  }

  rdtsc(): this {
    return this.bytes(0x0f, 0x31);
  }

  wrmsr(): this {
    return this.bytes(0x0f, 0x30);
  }

  pause(): this {
    return this.bytes(0xf3, 0x90);
  }

  /** The code, with every label resolved. */
  assemble(): Uint8Array {
    const out = Uint8Array.from(this.#bytes);
    const view = new DataView(out.buffer);
    for (const { at, label, kind } of this.#fixups) {
      const target = this.addressOf(label);
      if (kind === 'abs64') view.setBigUint64(at, BigInt(target), true);
      else view.setInt32(at, target - (this.base + at + 4), true);
    }
    return out;
  }
}

/** An ELF64 executable (x86-64) of one loadable segment, entered at its start. */
export function elf64(code: Uint8Array, base: number, memorySize = code.length): Uint8Array {
  const HEADERS = 64 + 56;
  const file = Buffer.alloc(HEADERS + code.length);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  file.writeUInt16LE(2, 16); // ET_EXEC
  file.writeUInt16LE(62, 18); // EM_X86_64
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(BigInt(base), 24); // e_entry
  file.writeBigUInt64LE(64n, 32); // e_phoff
  file.writeUInt16LE(64, 52);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(1, 56); // e_phnum
  file.writeUInt32LE(1, 64); // PT_LOAD
  file.writeUInt32LE(7, 68);
  file.writeBigUInt64LE(BigInt(HEADERS), 72);
  file.writeBigUInt64LE(BigInt(base), 80);
  file.writeBigUInt64LE(BigInt(base), 88);
  file.writeBigUInt64LE(BigInt(code.length), 96);
  file.writeBigUInt64LE(BigInt(Math.max(memorySize, code.length)), 104);
  file.writeBigUInt64LE(0x1000n, 112);
  file.set(code, HEADERS);
  return file;
}
