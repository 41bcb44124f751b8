/** The table that tells a guest of its HPET before it has read the DSDT. */
import { HPET_BLOCK_ID, HPET_MINIMUM_TICK } from '../../devices/hpet.ts';
import { join, littleEndian } from './aml_encoding.ts';
import { table } from './table.ts';

/** Generic Address Structure of registers in memory (ACPI specification 6.4, section 5.2.3.2). */
const inMemory = (address: number): Uint8Array => join(0, 0, 0, 0, littleEndian(address, 8));

/** HPET Description Table (IA-PC HPET specification 1.0a, section 3.2.4). No page protection is promised. */
export const hpet = (address: number): Uint8Array =>
  table('HPET', 1, join(littleEndian(HPET_BLOCK_ID, 4), inMemory(address), 0, littleEndian(HPET_MINIMUM_TICK, 2), 0));
