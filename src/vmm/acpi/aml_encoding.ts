/** How AML writes lengths, names and constants (ACPI specification 6.4, sections 20.2.2 to 20.2.4). */

/** Encoded AML: a term, an argument, or several terms behind each other. */
export type Aml = Uint8Array;
/** A single byte, or bytes. */
export type Part = number | Aml;

/** Parts behind each other. */
export function join(...parts: readonly Part[]): Aml {
  let length = 0;
  for (const part of parts) length += typeof part === 'number' ? 1 : part.length;
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    if (typeof part === 'number') out[at++] = part;
    else {
      out.set(part, at);
      at += part.length;
    }
  }
  return out;
}

/** Bytes of a little-endian number. */
export function littleEndian(value: number | bigint, bytes: number): Aml {
  const out = new Uint8Array(bytes);
  let rest = BigInt(value);
  if (rest < 0n || rest >> BigInt(8 * bytes)) throw new RangeError(`${value} does not fit ${bytes} bytes.`);
  for (let i = 0; i < bytes; i++) {
    out[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return out;
}

/** The most that a PkgLength says. */
const PKG_LENGTH_MAX = 2 ** 28 - 1;

function encodeLength(value: number, bytes: number): Aml {
  if (bytes === 1) return Uint8Array.of(value);
  const out = new Uint8Array(bytes);
  out[0] = ((bytes - 1) << 6) | (value & 0x0f);
  for (let i = 1; i < bytes; i++) out[i] = (value >>> (8 * i - 4)) & 0xff;
  return out;
}

/** Bytes that a PkgLength of this value takes. */
const lengthBytes = (value: number) => (value < 0x40 ? 1 : value < 2 ** 12 ? 2 : value < 2 ** 20 ? 3 : 4);

/**
 * PkgLength in front of `contents` bytes; it counts its own bytes.
 * @throws RangeError when they are more than 28 bits can say.
 */
export function pkgLength(contents: number): Aml {
  for (const bytes of [1, 2, 3, 4]) {
    const total = contents + bytes;
    if (lengthBytes(total) === bytes && total <= PKG_LENGTH_MAX) return encodeLength(total, bytes);
  }
  throw new RangeError(`${contents} bytes are too long for one AML package: ${PKG_LENGTH_MAX - 4} fit.`);
}

/** The width of a field unit: written like a PkgLength that counts nothing but the bits. @throws RangeError */
export function fieldLength(bits: number): Aml {
  if (!Number.isInteger(bits) || bits < 0 || bits > PKG_LENGTH_MAX) {
    throw new RangeError(`A field of ${bits} bits is too wide.`);
  }
  return encodeLength(bits, lengthBytes(bits));
}

/** An opcode, PkgLength, and what it counts. */
export function packaged(opcode: readonly number[], ...contents: readonly Part[]): Aml {
  const body = join(...contents);
  return join(...opcode, pkgLength(body.length), body);
}

const SEGMENT = /^[A-Z_][A-Z0-9_]{0,3}$/;
const MAX_SEGMENTS = 255;

/** One name segment, padded to four characters. @throws RangeError for what is none. */
export function nameSegment(text: string): Aml {
  if (!SEGMENT.test(text)) throw new RangeError(`"${text}" is not an ACPI name segment.`);
  return Buffer.from(text.padEnd(4, '_'), 'latin1');
}

/**
 * A name: `\_SB.PCI0`, `^CRS`, `FOO`; `\` is the root.
 * @throws RangeError for what is none.
 */
export function path(text: string): Aml {
  const prefix = /^(?:\\|\^*)/.exec(text)?.[0] ?? '';
  const rest = text.slice(prefix.length);
  if (rest === '') {
    if (prefix === '') throw new RangeError('An ACPI name is not empty.');
    return join(Buffer.from(prefix, 'latin1'), 0x00);
  }
  const segments = rest.split('.');
  if (segments.length > MAX_SEGMENTS || segments.some((segment) => !SEGMENT.test(segment))) {
    throw new RangeError(`"${text}" is not an ACPI name.`);
  }
  const count = segments.length === 1 ? [] : segments.length === 2 ? [0x2e] : [0x2f, segments.length];
  return join(Buffer.from(prefix, 'latin1'), ...count, ...segments.map(nameSegment));
}

/**
 * An unsigned integer of up to 64 bits, in its shortest form.
 * @throws RangeError
 */
export function integer(value: number | bigint): Aml {
  const big = BigInt(value);
  if (big < 0n || big >> 64n) throw new RangeError(`${value} is not an unsigned 64-bit integer.`);
  if (big <= 1n) return Uint8Array.of(Number(big));
  const [opcode, bytes] =
    big < 2n ** 8n ? [0x0a, 1] : big < 2n ** 16n ? [0x0b, 2] : big < 2n ** 32n ? [0x0c, 4] : [0x0e, 8];
  return join(opcode, littleEndian(big, bytes));
}

/** All ones: 64 bits wide in tables of revision 2. */
export const ones: Aml = Uint8Array.of(0xff);

/** A string. @throws RangeError: AML strings are ASCII without NUL. */
export function string(text: string): Aml {
  const bytes = Buffer.from(text, 'utf8');
  if (bytes.some((byte) => byte === 0 || byte > 0x7f)) throw new RangeError(`"${text}" is not ASCII without NUL.`);
  return join(0x0d, bytes, 0x00);
}

/** A compressed EISA id such as `PNP0501` (19.3.4). @throws RangeError */
export function eisaId(id: string): Aml {
  if (!/^[A-Z]{3}[0-9A-F]{4}$/.test(id)) throw new RangeError(`"${id}" is not an EISA id.`);
  const [a, b, c] = [...id].map((char) => char.charCodeAt(0) - 0x40);
  const vendor = (a << 10) | (b << 5) | c;
  const product = Number.parseInt(id.slice(3), 16);
  // Always a DWord, however small: that is how compilers write it and readers know it.
  return join(0x0c, vendor >> 8, vendor & 0xff, product >> 8, product & 0xff);
}

/** A UUID as a buffer, in the byte order of ToUUID (19.6.142). @throws RangeError */
export function uuid(text: string): Aml {
  const match = /^([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})$/i.exec(text);
  if (!match) throw new RangeError(`"${text}" is not a UUID.`);
  const [a, b, c, d, e] = match.slice(1).map((part) => Buffer.from(part, 'hex'));
  return buffer(join(a.reverse(), b.reverse(), c.reverse(), d, e));
}

/** A buffer. @param size bytes of it when it is longer than its contents; the rest is zero. */
export function buffer(bytes: Uint8Array, size = bytes.length): Aml {
  if (size < bytes.length) throw new RangeError(`A buffer of ${size} bytes does not hold ${bytes.length}.`);
  return packaged([0x11], integer(size), bytes);
}
