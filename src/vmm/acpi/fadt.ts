import type { AcpiBoard } from './board.ts';
import { HEADER_SIZE, ioRegister, table } from './table.ts';

/** The ICH9's registers from PMBASE (Intel 316972-004, section 13.8.3); GPE0's length is q35's. */
const PM1_EVT = { offset: 0x00, bytes: 4 } as const;
const PM1_CNT = { offset: 0x04, bytes: 2 } as const;
const PM_TMR = { offset: 0x08, bytes: 4 } as const;
const GPE0 = { offset: 0x20, bytes: 16 } as const;

const FADT_SIZE = 276;
const FADT_REVISION = 6;
const FADT_MINOR_REVISION = 3;

/** Fixed feature flags (table 5.10). */
const FLAGS = {
  WBINVD: 1 << 0,
  PROC_C1: 1 << 2,
  SLP_BUTTON: 1 << 5,
  FIX_RTC: 1 << 6,
  RESET_REG_SUP: 1 << 10,
} as const;

/** IA-PC boot architecture flags (table 5.11). */
const BOOT_ARCH = {
  LEGACY_DEVICES: 1 << 0,
  I8042: 1 << 1,
  VGA_NOT_PRESENT: 1 << 2,
  CMOS_RTC_NOT_PRESENT: 1 << 5,
} as const;

/** Where the century stands in the CMOS. */
const CMOS_CENTURY = 0x32;
/** Latencies of C2 above 100 µs and of C3 above 1000 µs say that there is neither. */
const NO_C_STATE = 0xfff;

/**
 * Fixed ACPI Description Table, revision 6 (ACPI specification 6.4, section 5.2.9).
 *
 * What is not there is said to be not there, so that no guest waits for it: SMI_CMD is 0 because ACPI is always on;
 * keyboard controller, display and clock have their flags; TMR_VAL_EXT is clear as the timer has 24 bits. The power
 * button is the fixed one (PWR_BUTTON clear); a sleep button and a wake by the clock do not exist (flags set).
 *
 * @param facs guest address of the FACS. @param dsdt guest address of the DSDT; both below 4 GiB.
 */
export function fadt(board: AcpiBoard, facs: number, dsdt: number): Uint8Array {
  const out = Buffer.alloc(FADT_SIZE);
  const port = ({ offset }: { offset: number }) => board.pmBase + offset;
  out.writeUInt32LE(facs, 36);
  out.writeUInt32LE(dsdt, 40);
  out.writeUInt16LE(board.sci, 46);
  out.writeUInt32LE(port(PM1_EVT), 56);
  out.writeUInt32LE(port(PM1_CNT), 64);
  out.writeUInt32LE(port(PM_TMR), 76);
  const gpe0 = board.gpe0 ?? { port: port(GPE0), length: GPE0.bytes };
  out.writeUInt32LE(gpe0.port, 80);
  out[88] = PM1_EVT.bytes;
  out[89] = PM1_CNT.bytes;
  out[91] = PM_TMR.bytes;
  out[92] = gpe0.length;
  out.writeUInt16LE(NO_C_STATE, 96);
  out.writeUInt16LE(NO_C_STATE, 98);
  out[108] = board.rtc ? CMOS_CENTURY : 0;
  out.writeUInt16LE(bootArchitecture(board), 109);
  out.writeUInt32LE(FLAGS.WBINVD | FLAGS.PROC_C1 | FLAGS.SLP_BUTTON | FLAGS.FIX_RTC | FLAGS.RESET_REG_SUP, 112);
  out.set(ioRegister(board.resetRegister.port, 8, 'byte'), 116);
  out[128] = board.resetRegister.value;
  out[131] = FADT_MINOR_REVISION;
  // X_FIRMWARE_CTRL stays 0: with both set, Linux takes the one FACS for two.
  out.writeBigUInt64LE(BigInt(dsdt), 140);
  out.set(ioRegister(port(PM1_EVT), 8 * PM1_EVT.bytes, 'word'), 148);
  out.set(ioRegister(port(PM1_CNT), 8 * PM1_CNT.bytes, 'word'), 172);
  out.set(ioRegister(port(PM_TMR), 8 * PM_TMR.bytes, 'dword'), 208);
  out.set(ioRegister(gpe0.port, 8 * gpe0.length, 'byte'), 220);
  return table('FACP', FADT_REVISION, out.subarray(HEADER_SIZE));
}

function bootArchitecture(board: AcpiBoard): number {
  let flags = BOOT_ARCH.VGA_NOT_PRESENT;
  if (board.uarts.length > 0 || board.i8042) flags |= BOOT_ARCH.LEGACY_DEVICES;
  if (board.i8042) flags |= BOOT_ARCH.I8042;
  if (!board.rtc) flags |= BOOT_ARCH.CMOS_RTC_NOT_PRESENT;
  return flags;
}

const FACS_SIZE = 64;
const FACS_VERSION = 2;

/** Firmware ACPI Control Structure (5.2.10): no common header and no checksum; stands on a 64-byte boundary. */
export function facs(): Uint8Array {
  const out = Buffer.alloc(FACS_SIZE);
  out.write('FACS', 0, 'latin1');
  out.writeUInt32LE(FACS_SIZE, 4);
  out[32] = FACS_VERSION;
  return out;
}
