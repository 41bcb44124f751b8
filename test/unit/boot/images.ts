/** Small kernel images around given machine code, one builder a format. Every field can be made wrong. */
import type { BootPlan, BootRequest, E820Entry } from '../../../src/vmm/boot/plan.ts';

export const MiB = 2 ** 20;
export const GiB = 2 ** 30;

/** A PC's memory: two ranges below 1 MiB's upper part, the rest of the low RAM, and RAM above 4 GiB. */
export function pcMemory(low = 256 * MiB, high = 0): E820Entry[] {
  return [
    { gpa: 0, size: 0x9fc00, type: 'ram' },
    { gpa: 0x9fc00, size: 0x400, type: 'reserved' },
    { gpa: 0xe0000, size: 0x20000, type: 'reserved' },
    { gpa: MiB, size: low - MiB, type: 'ram' },
    ...(high ? [{ gpa: 4 * GiB, size: high, type: 'ram' } as const] : []),
  ];
}

export function bootRequest(kernel: Uint8Array, more: Partial<BootRequest> = {}): BootRequest {
  return {
    kernel,
    kernelName: '/boot/test-kernel',
    cmdline: 'console=ttyS0',
    memoryMap: pcMemory(),
    rsdp: 0xe0000,
    ...more,
  };
}

export interface BzImageOptions {
  readonly code?: Uint8Array;
  readonly setupSects?: number;
  readonly version?: number;
  readonly xloadflags?: number;
  readonly loadflags?: number;
  readonly relocatable?: boolean;
  readonly alignment?: number;
  readonly minAlignment?: number;
  readonly prefAddress?: bigint;
  readonly initSize?: number;
  readonly initrdMax?: number;
  readonly cmdlineSize?: number;
  readonly syssize?: number;
}

/** A bzImage whose 64-bit entry point runs `code`. */
export function buildBzImage(options: BzImageOptions = {}): Buffer {
  const { code = Uint8Array.of(0xf4), setupSects = 4 } = options;
  const start = ((setupSects || 4) + 1) * 512;
  const size = Math.ceil((0x200 + code.length) / 16) * 16;
  const file = Buffer.alloc(start + size);
  file[0x1f1] = setupSects;
  file.writeUInt32LE(options.syssize ?? size / 16, 0x1f4);
  file.writeUInt16LE(0xaa55, 0x1fe);
  file.writeUInt16LE(0x6aeb, 0x200);
  file.write('HdrS', 0x202, 'latin1');
  file.writeUInt16LE(options.version ?? 0x020f, 0x206);
  file[0x211] = options.loadflags ?? 1;
  file.writeUInt32LE(options.initrdMax ?? 0x7fffffff, 0x22c);
  file.writeUInt32LE(options.alignment ?? 0x200000, 0x230);
  file[0x234] = (options.relocatable ?? true) ? 1 : 0;
  file[0x235] = options.minAlignment ?? 21;
  file.writeUInt16LE(options.xloadflags ?? 0x7f, 0x236);
  file.writeUInt32LE(options.cmdlineSize ?? 2047, 0x238);
  file.writeBigUInt64LE(options.prefAddress ?? 0x1000000n, 0x258);
  file.writeUInt32LE(options.initSize ?? 0x800000, 0x260);
  file.set(code, start + 0x200);
  return file;
}

export interface SegmentOptions {
  readonly type?: number;
  readonly bytes?: Uint8Array;
  readonly paddr?: bigint;
  readonly vaddr?: bigint;
  readonly memorySize?: bigint;
  readonly align?: bigint;
}

export interface ElfOptions {
  readonly bits?: 32 | 64;
  readonly type?: number;
  readonly machine?: number;
  readonly entry?: bigint;
  readonly bigEndian?: boolean;
  readonly segments?: readonly SegmentOptions[];
}

const word = (bits: 32 | 64) => bits / 8;

/** An ELF executable of any segments; the default is one `hlt` at 1 MiB. */
export function buildElf(options: ElfOptions = {}): Buffer {
  const { bits = 64, segments = [{}] } = options;
  const [ehsize, phentsize] = bits === 64 ? [64, 56] : [52, 32];
  const parts: Buffer[] = [];
  const headers = Buffer.alloc(ehsize + phentsize * segments.length);
  let offset = headers.length;
  const put = (value: bigint, at: number) =>
    bits === 64 ? headers.writeBigUInt64LE(value, at) : headers.writeUInt32LE(Number(value), at);

  headers.set([0x7f, 0x45, 0x4c, 0x46, bits / 32, options.bigEndian ? 2 : 1, 1]);
  const put16 = (value: number, at: number) =>
    options.bigEndian ? headers.writeUInt16BE(value, at) : headers.writeUInt16LE(value, at);
  put16(options.type ?? 2, 16);
  put16(options.machine ?? (bits === 64 ? 62 : 3), 18);
  headers.writeUInt32LE(1, 20);
  put(options.entry ?? 0x100000n, 24);
  put(BigInt(ehsize), 24 + word(bits));
  const tail = 24 + 3 * word(bits) + 4;
  headers.writeUInt16LE(ehsize, tail);
  headers.writeUInt16LE(phentsize, tail + 2);
  headers.writeUInt16LE(segments.length, tail + 4);

  for (const [i, segment] of segments.entries()) {
    const { type = 1, bytes = Uint8Array.of(0xf4), paddr = 0x100000n, vaddr = paddr, align = 0x1000n } = segment;
    const memory = segment.memorySize ?? BigInt(bytes.length);
    const at = ehsize + i * phentsize;
    headers.writeUInt32LE(type, at);
    if (bits === 64) {
      headers.writeUInt32LE(7, at + 4);
      for (const [k, value] of [BigInt(offset), vaddr, paddr, BigInt(bytes.length), memory, align].entries()) {
        headers.writeBigUInt64LE(value, at + 8 + 8 * k);
      }
    } else {
      const values = [BigInt(offset), vaddr, paddr, BigInt(bytes.length), memory, 7n, align];
      for (const [k, value] of values.entries()) headers.writeUInt32LE(Number(value), at + 4 + 4 * k);
    }
    parts.push(Buffer.from(bytes));
    offset += bytes.length;
  }
  return Buffer.concat([headers, ...parts]);
}

/** One ELF note. */
export function elfNote(name: string, type: number, descriptor: Uint8Array, align = 4): Buffer {
  const pad = (length: number) => Math.ceil(length / align) * align;
  const label = Buffer.from(`${name}\0`);
  const start = pad(12 + label.length);
  const note = Buffer.alloc(pad(start + descriptor.length));
  note.writeUInt32LE(label.length, 0);
  note.writeUInt32LE(descriptor.length, 4);
  note.writeUInt32LE(type, 8);
  note.set(label, 12);
  note.set(descriptor, start);
  return note;
}

/** An address of 4 or 8 bytes, as a PVH note has it. */
export function addressBytes(address: number, size: 4 | 8): Buffer {
  const bytes = Buffer.alloc(size);
  bytes.writeUInt32LE(address);
  return bytes;
}

/** An ELF file with a PVH note: `code` is 32-bit, loaded at `base` and entered at its start. */
export function buildPvhElf(code: Uint8Array = Uint8Array.of(0xf4), base = 0x100000, bits: 32 | 64 = 64): Buffer {
  const notes = Buffer.concat([
    elfNote('GNU', 3, new Uint8Array(20).fill(0xab)),
    elfNote('Xen', 18, addressBytes(base, bits === 64 ? 8 : 4)),
  ]);
  return buildElf({
    bits,
    entry: BigInt(base),
    segments: [
      { bytes: code, paddr: BigInt(base) },
      { type: 4, bytes: notes, paddr: 0n, align: 4n },
    ],
  });
}

export interface MultibootOptions {
  readonly code?: Uint8Array;
  readonly base?: number;
  /** Low flags (requirements). */
  readonly requirements?: number;
  /** Bytes of zeros behind the code. */
  readonly bss?: number;
  readonly addresses?: Partial<Record<'header' | 'load' | 'loadEnd' | 'bssEnd' | 'entry', number>>;
  readonly checksum?: number;
}

/** A flat Multiboot image that says its addresses itself; `code` is 32-bit, behind the header. */
export function buildMultiboot(options: MultibootOptions = {}): Buffer {
  const { code = Uint8Array.of(0xf4), base = 0x100000, requirements = 0, addresses = {} } = options;
  const header = multibootHeader(requirements | 0x10000, 32, options.checksum);
  const end = base + 32 + code.length;
  const fields = [
    addresses.header ?? base,
    addresses.load ?? base,
    addresses.loadEnd ?? 0,
    addresses.bssEnd ?? (options.bss ? end + options.bss : 0),
    addresses.entry ?? base + 32,
  ];
  for (const [i, value] of fields.entries()) header.writeUInt32LE(value, 12 + 4 * i);
  return Buffer.concat([header, code]);
}

function multibootHeader(flags: number, size: number, checksum?: number): Buffer {
  const header = Buffer.alloc(size);
  header.writeUInt32LE(0x1badb002, 0);
  header.writeUInt32LE(flags, 4);
  header.writeUInt32LE(checksum ?? -(0x1badb002 + flags) >>> 0, 8);
  return header;
}

/** An ELF file with a Multiboot header in front of its 32-bit code. */
export function buildMultibootElf(
  bits: 32 | 64 = 32,
  code: Uint8Array = Uint8Array.of(0xf4),
  base = 0x100000,
  requirements = 3,
): Buffer {
  const bytes = Buffer.concat([multibootHeader(requirements, 12), code]);
  // Both ELF headers are a multiple of four bytes long, so that the Multiboot header is on its boundary.
  return buildElf({ bits, entry: BigInt(base + 12), segments: [{ bytes, paddr: BigInt(base) }] });
}

/** A plan as memory: reads bytes that it writes, and zero elsewhere. */
export function planned(plan: BootPlan, gpa: number, length: number): Buffer {
  const out = Buffer.alloc(length);
  for (const write of plan.writes) {
    const from = Math.max(gpa, write.gpa);
    const to = Math.min(gpa + length, write.gpa + write.bytes.length);
    if (from < to) out.set(write.bytes.subarray(from - write.gpa, to - write.gpa), from - gpa);
  }
  return out;
}

export const u32 = (plan: BootPlan, gpa: number): number => planned(plan, gpa, 4).readUInt32LE();
export const u64 = (plan: BootPlan, gpa: number): bigint => planned(plan, gpa, 8).readBigUInt64LE();

/** What is wrong with a plan, whatever kernel it is for; empty when nothing is. */
export function planFaults(plan: BootPlan, request: BootRequest): string[] {
  const faults: string[] = [];
  const ram: { gpa: number; end: number }[] = [];
  for (const { gpa, size, type } of [...request.memoryMap].sort((a, b) => a.gpa - b.gpa)) {
    if (type !== 'ram') continue;
    if (ram.at(-1)?.end === gpa) ram[ram.length - 1].end = gpa + size;
    else ram.push({ gpa, end: gpa + size });
  }
  const pieces = [
    ...plan.writes.map(({ gpa, bytes }) => ({ gpa, size: bytes.length })),
    ...plan.zeroes.map(({ gpa, size }) => ({ gpa, size })),
  ].sort((a, b) => a.gpa - b.gpa);
  let last = 0;
  for (const { gpa, size } of pieces) {
    const where = `${gpa.toString(16)}+${size.toString(16)}`;
    if (size <= 0) faults.push(`empty piece ${where}`);
    if (!ram.some((each) => gpa >= each.gpa && gpa + size <= each.end)) faults.push(`${where} is not RAM`);
    if (gpa < last) faults.push(`${where} overlaps what is before it`);
    if (gpa < 0x500) faults.push(`${where} is in the BIOS data area`);
    last = gpa + size;
  }
  const { rip } = plan.entry;
  if (!pieces.some(({ gpa, size }) => rip >= gpa && rip < gpa + size))
    faults.push(`rip ${rip.toString(16)} is nowhere`);
  return faults;
}
