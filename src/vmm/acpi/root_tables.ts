/** The tables that lead to the others, and one that says what need not be worked around. */
import { join, littleEndian } from './aml_encoding.ts';
import { checksum, OEM_ID, table } from './table.ts';

/** Bytes of an RSDP of revision 2. */
export const RSDP_SIZE = 36;

/** Root System Description Pointer, revision 2 (ACPI specification 6.4, section 5.2.5.3). There is no RSDT. */
export function rsdp(xsdt: number): Uint8Array {
  const out = Buffer.alloc(RSDP_SIZE);
  out.write('RSD PTR ', 0, 'latin1');
  out.write(OEM_ID, 9, 'latin1');
  out[15] = 2;
  out.writeUInt32LE(RSDP_SIZE, 20);
  out.writeBigUInt64LE(BigInt(xsdt), 24);
  // The first checksum is of the part that revision 0 had, the second of all.
  out[8] = checksum(out.subarray(0, 20));
  out[32] = checksum(out);
  return out;
}

/** Extended System Description Table (5.2.8). @param addresses of the tables that it lists. */
export const xsdt = (addresses: readonly number[]): Uint8Array =>
  table('XSDT', 1, join(...addresses.map((address) => littleEndian(address, 8))));

/** One read of the PM timer is right: it need not be read three times. */
const ACPI_PM_TIMER_GOOD = 1 << 1;

/** Windows ACPI Emulated Devices Table (Microsoft, revision 1.0 of 2009). */
export const waet = (): Uint8Array => table('WAET', 1, littleEndian(ACPI_PM_TIMER_GOOD, 4));
