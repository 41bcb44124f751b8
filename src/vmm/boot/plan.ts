import { NemuError } from '../../client/errors.ts';

export interface E820Entry {
  readonly gpa: number;
  readonly size: number;
  readonly type: 'ram' | 'reserved' | 'acpi';
}

export interface BootRequest {
  readonly kernel: Uint8Array;
  readonly kernelName: string;
  readonly initrd?: Uint8Array;
  readonly cmdline: string;
  readonly memoryMap: readonly E820Entry[];
  readonly rsdp: number;
}

export interface EntryState {
  readonly mode: 'long64' | 'protected32';
  readonly rip: number;
  readonly rsi?: number;
  readonly rbx?: number;
  readonly rax?: number;
  readonly rsp?: number;
  readonly cr3?: number;
  readonly gdt: { readonly base: number; readonly limit: number };
}

export interface BootPlan {
  readonly protocol: 'bzimage' | 'pvh' | 'elf64' | 'multiboot1';
  readonly writes: { readonly gpa: number; readonly bytes: Uint8Array }[];
  readonly entry: EntryState;
  readonly warnings: string[];
}

export function planBoot(request: BootRequest): BootPlan {
  const k = Buffer.from(request.kernel.buffer, request.kernel.byteOffset, request.kernel.length);
  const writes: { gpa: number; bytes: Uint8Array }[] = [];
  const gdt = Buffer.alloc(32);
  gdt.writeBigUInt64LE(0x00af9b000000ffffn, 16);
  gdt.writeBigUInt64LE(0x00cf93000000ffffn, 24);
  writes.push({ gpa: 0x500, bytes: gdt });
  const pt = Buffer.alloc(6 * 4096);
  pt.writeBigUInt64LE(BigInt(0xa000 | 3), 0);
  for (let i = 0; i < 4; i++) pt.writeBigUInt64LE(BigInt((0xb000 + i * 4096) | 3), 4096 + i * 8);
  for (let i = 0; i < 2048; i++) pt.writeBigUInt64LE((BigInt(i) * 0x200000n) | 0x83n, 8192 + i * 8);
  writes.push({ gpa: 0x9000, bytes: pt });
  const zp = Buffer.alloc(4096);
  const cmd = Buffer.from(`${request.cmdline}\0`);
  writes.push({ gpa: 0x20000, bytes: cmd });
  let rip: number;
  if (k.readUInt32BE(0) === 0x7f454c46) {
    rip = Number(k.readBigUInt64LE(24));
    const phoff = Number(k.readBigUInt64LE(32));
    for (let i = 0; i < k.readUInt16LE(56); i++) {
      const p = phoff + i * 56;
      if (k.readUInt32LE(p) !== 1) continue;
      const off = Number(k.readBigUInt64LE(p + 8));
      writes.push({
        gpa: Number(k.readBigUInt64LE(p + 24)),
        bytes: k.subarray(off, off + Number(k.readBigUInt64LE(p + 32))),
      });
    }
  } else if (k.toString('latin1', 0x202, 0x206) === 'HdrS') {
    const setup = ((k[0x1f1] || 4) + 1) * 512;
    k.copy(zp, 0x1f1, 0x1f1, 0x202 + k[0x201]);
    writes.push({ gpa: 0x1000000, bytes: k.subarray(setup) });
    rip = 0x1000000 + 0x200;
    zp[0x210] = 0xff;
    zp[0x211] |= 1;
    zp.writeUInt32LE(0x20000, 0x228);
    if (request.initrd) {
      const low = request.memoryMap.filter((e) => e.type === 'ram' && e.gpa < 2 ** 32).at(-1)!;
      const at = Math.floor((Math.min(low.gpa + low.size, 0x7ff00000) - request.initrd.length) / 4096) * 4096;
      writes.push({ gpa: at, bytes: request.initrd });
      zp.writeUInt32LE(at, 0x218);
      zp.writeUInt32LE(request.initrd.length, 0x21c);
    }
  } else throw new NemuError('KERNEL_FORMAT', `${request.kernelName} is not a kernel.`);
  zp.writeBigUInt64LE(BigInt(request.rsdp), 0x70);
  zp[0x1e8] = request.memoryMap.length;
  for (const [i, e] of request.memoryMap.entries()) {
    zp.writeBigUInt64LE(BigInt(e.gpa), 0x2d0 + i * 20);
    zp.writeBigUInt64LE(BigInt(e.size), 0x2d8 + i * 20);
    zp.writeUInt32LE({ ram: 1, reserved: 2, acpi: 3 }[e.type], 0x2e0 + i * 20);
  }
  writes.push({ gpa: 0x7000, bytes: zp });
  return {
    protocol: 'elf64',
    writes,
    entry: { mode: 'long64', rip, rsi: 0x7000, rsp: 0x8000, cr3: 0x9000, gdt: { base: 0x500, limit: 31 } },
    warnings: [],
  };
}
