import type { AcpiBoard } from './board.ts';
import { dsdt } from './dsdt.ts';

const OEM_ID = 'NEMU  ';
const OEM_TABLE_ID = 'NEMUBRD ';
const CREATOR_ID = 'NEMU';
const HEADER = 36;

const ICH9 = { PM1_EVT: 0x00, PM1_CNT: 0x04, PM_TMR: 0x08, GPE0: 0x20, GPE0_LENGTH: 16 } as const;

/** The byte that makes all of `bytes` sum up to zero. */
const checksum = (bytes: Uint8Array): number => -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;

/** A description table: the common header (ACPI 5.2.6), then `body`. */
function table(signature: string, revision: number, body: Uint8Array): Buffer {
  const out = Buffer.alloc(HEADER + body.length);
  out.write(signature, 0, 'latin1');
  out.writeUInt32LE(out.length, 4);
  out[8] = revision;
  out.write(OEM_ID, 10, 'latin1');
  out.write(OEM_TABLE_ID, 16, 'latin1');
  out.writeUInt32LE(1, 24);
  out.write(CREATOR_ID, 28, 'latin1');
  out.writeUInt32LE(1, 32);
  out.set(body, HEADER);
  out[9] = checksum(out);
  return out;
}

/** Generic Address Structure (5.2.3.2) in system I/O space. @param bits register width. */
function writeGas(into: Buffer, offset: number, bits: number, accessSize: number, port: number): void {
  into[offset] = 1;
  into[offset + 1] = bits;
  into[offset + 2] = 0;
  into[offset + 3] = accessSize;
  into.writeBigUInt64LE(BigInt(port), offset + 4);
}

const FADT_LENGTH = 276;
const FADT_FLAG = {
  WBINVD: 1 << 0,
  PROC_C1: 1 << 2,
  SLP_BUTTON: 1 << 5,
  RTC_S4: 1 << 7,
  RESET_REG_SUP: 1 << 10,
} as const;
const BOOT_ARCH = { LEGACY_DEVICES: 1 << 0, I8042: 1 << 1, VGA_NOT_PRESENT: 1 << 2 } as const;

/** Fixed ACPI Description Table, revision 6 (5.2.9). Offsets are from the start of the table. */
function fadt(board: AcpiBoard, facs: number, dsdtAddress: number): Buffer {
  const out = Buffer.alloc(FADT_LENGTH);
  const pm = (offset: number) => board.pmBase + offset;
  out.writeUInt32LE(facs, 36);
  out.writeUInt32LE(dsdtAddress, 40);
  out.writeUInt16LE(board.sci, 46);
  // SMI_CMD stays 0: there is no SMM, and ACPI is always on (4.8.2.5).
  out.writeUInt32LE(pm(ICH9.PM1_EVT), 56);
  out.writeUInt32LE(pm(ICH9.PM1_CNT), 64);
  out.writeUInt32LE(pm(ICH9.PM_TMR), 76);
  out.writeUInt32LE(pm(ICH9.GPE0), 80);
  out[88] = 4;
  out[89] = 2;
  out[91] = 4;
  out[92] = ICH9.GPE0_LENGTH;
  // No C2 and C3: latencies beyond what the specification calls supported.
  out.writeUInt16LE(0xfff, 96);
  out.writeUInt16LE(0xfff, 98);
  if (board.rtc) out[108] = 0x32;
  out.writeUInt16LE(BOOT_ARCH.LEGACY_DEVICES | (board.i8042 ? BOOT_ARCH.I8042 : 0) | BOOT_ARCH.VGA_NOT_PRESENT, 109);
  // The power button is the fixed one, for its control-method flag is clear; there is no sleep button.
  out.writeUInt32LE(
    FADT_FLAG.WBINVD | FADT_FLAG.PROC_C1 | FADT_FLAG.SLP_BUTTON | FADT_FLAG.RTC_S4 | FADT_FLAG.RESET_REG_SUP,
    112,
  );
  writeGas(out, 116, 8, 1, board.resetRegister.port);
  out[128] = board.resetRegister.value;
  out[131] = 3; // minor revision: 6.3
  out.writeBigUInt64LE(BigInt(dsdtAddress), 140);
  writeGas(out, 148, 32, 2, pm(ICH9.PM1_EVT));
  writeGas(out, 172, 16, 2, pm(ICH9.PM1_CNT));
  writeGas(out, 208, 32, 3, pm(ICH9.PM_TMR));
  writeGas(out, 220, ICH9.GPE0_LENGTH * 8, 1, pm(ICH9.GPE0));
  return table('FACP', 6, out.subarray(HEADER));
}

/** Firmware ACPI Control Structure (5.2.10): 64 bytes, no checksum. */
function facs(): Buffer {
  const out = Buffer.alloc(64);
  out.write('FACS', 0, 'latin1');
  out.writeUInt32LE(64, 4);
  out[32] = 2;
  return out;
}

const LOCAL_APIC_ADDRESS = 0xfee00000;

/** Multiple APIC Description Table (5.2.12). */
function madt(board: AcpiBoard): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(LOCAL_APIC_ADDRESS, 0);
  head.writeUInt32LE(1, 4); // PCAT_COMPAT: there are 8259s
  const parts: number[][] = board.cpus.map(({ uid, apicId, online }) => {
    const flags = online ? 1 : 2; // enabled, or online capable
    if (apicId < 255 && uid < 255) return [0, 8, uid, apicId, flags, 0, 0, 0];
    return [9, 16, 0, 0, ...u32(apicId), ...u32(flags), ...u32(uid)];
  });
  parts.push([1, 12, board.ioapic.id, 0, ...u32(board.ioapic.address), ...u32(board.ioapic.gsiBase)]);
  // ISA interrupt 0 is wired to input 2; the SCI is level-triggered, active high. Bus, source, GSI, flags.
  parts.push([2, 10, 0, 0, ...u32(2), 0, 0]);
  const LEVEL_HIGH = 0x0d;
  parts.push([2, 10, 0, board.sci, ...u32(board.sci), LEVEL_HIGH, 0]);
  // NMI on LINT1 of every processor.
  parts.push([4, 6, 0xff, 0, 0, 1]);
  if (board.cpus.some(({ apicId, uid }) => apicId >= 255 || uid >= 255)) {
    parts.push([10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
  }
  return table('APIC', 5, Buffer.concat([head, Uint8Array.from(parts.flat())]));
}

const u32 = (value: number) => [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, (value >>> 24) & 0xff];

function xsdt(addresses: readonly number[]): Buffer {
  const body = Buffer.alloc(addresses.length * 8);
  for (const [i, address] of addresses.entries()) body.writeBigUInt64LE(BigInt(address), i * 8);
  return table('XSDT', 1, body);
}

/** Root System Description Pointer, revision 2 (5.2.5.3). */
function rsdp(xsdtAddress: number): Buffer {
  const out = Buffer.alloc(36);
  out.write('RSD PTR ', 0, 'latin1');
  out.write(OEM_ID, 9, 'latin1');
  out[15] = 2;
  out.writeUInt32LE(36, 20);
  out.writeBigUInt64LE(BigInt(xsdtAddress), 24);
  out[8] = checksum(out.subarray(0, 20));
  out[32] = checksum(out);
  return out;
}

export interface AcpiImage {
  /** All tables, to be placed at the base that was asked for. */
  readonly bytes: Uint8Array;
  /** Guest address of the RSDP. */
  readonly rsdp: number;
  /** Each table by signature, for judges. */
  readonly tables: ReadonlyMap<string, Uint8Array>;
}

const align = (value: number, to: number) => Math.ceil(value / to) * to;

/**
 * All ACPI tables of a machine, laid out from guest address `base` on. 254 processors take about 16 KiB.
 */
export function buildAcpi(board: AcpiBoard, base: number): AcpiImage {
  const pieces: { address: number; bytes: Uint8Array }[] = [];
  const tables = new Map<string, Uint8Array>();
  let next = base;
  const place = (bytes: Uint8Array, alignment = 16): number => {
    const address = align(next, alignment);
    pieces.push({ address, bytes });
    next = address + bytes.length;
    tables.set(Buffer.from(bytes.subarray(0, 4)).toString('latin1'), bytes);
    return address;
  };
  // The RSDP stands first, where a search of the BIOS area finds it; its size is known before its content.
  const rsdpAddress = align(next, 16);
  next = rsdpAddress + 36;
  const facsAddress = place(facs(), 64);
  const dsdtAddress = place(table('DSDT', 2, Uint8Array.from(dsdt(board))));
  const listed = [place(fadt(board, facsAddress, dsdtAddress)), place(madt(board))];
  const xsdtAddress = place(xsdt(listed));
  pieces.push({ address: rsdpAddress, bytes: rsdp(xsdtAddress) });
  const bytes = new Uint8Array(next - base);
  for (const piece of pieces) bytes.set(piece.bytes, piece.address - base);
  return { bytes, rsdp: rsdpAddress, tables };
}
