/** What all ACPI tables have in common (ACPI specification 6.4, sections 5.2.3 and 5.2.6). */

export const OEM_ID = 'NEMU  ';
const OEM_TABLE_ID = 'NEMUBRD ';
const OEM_REVISION = 1;
const CREATOR_ID = 'NEMU';
const CREATOR_REVISION = 1;

/** Bytes of the common header. */
export const HEADER_SIZE = 36;

/** The byte that makes all of `bytes` sum up to zero. */
export const checksum = (bytes: Uint8Array): number => -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;

/**
 * A system description table: the common header, then the body.
 * @param revision of the table's own layout.
 */
export function table(signature: string, revision: number, body: Uint8Array): Uint8Array {
  const out = Buffer.alloc(HEADER_SIZE + body.length);
  out.write(signature, 0, 'latin1');
  out.writeUInt32LE(out.length, 4);
  out[8] = revision;
  out.write(OEM_ID, 10, 'latin1');
  out.write(OEM_TABLE_ID, 16, 'latin1');
  out.writeUInt32LE(OEM_REVISION, 24);
  out.write(CREATOR_ID, 28, 'latin1');
  out.writeUInt32LE(CREATOR_REVISION, 32);
  out.set(body, HEADER_SIZE);
  out[9] = checksum(out);
  return out;
}

/** Access sizes of a Generic Address Structure. */
export const ACCESS_SIZE = { byte: 1, word: 2, dword: 3, qword: 4 } as const;

/**
 * A Generic Address Structure in system I/O space (5.2.3.2).
 * @param bits width of the register.
 */
export function ioRegister(port: number, bits: number, access: keyof typeof ACCESS_SIZE): Uint8Array {
  const out = Buffer.alloc(12);
  out[0] = 1;
  out[1] = bits;
  out[3] = ACCESS_SIZE[access];
  out.writeBigUInt64LE(BigInt(port), 4);
  return out;
}
