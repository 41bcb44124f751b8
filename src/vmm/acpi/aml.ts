/**
 * ACPI Machine Language, written as nested calls that give bytes (ACPI specification 6.4, chapter 20). A
 * term is a list of bytes; what has a length of its own (scopes, devices, methods, packages) wraps its
 * contents, so that nothing needs to be patched.
 */

export type Aml = readonly number[];

const EXT = 0x5b;

/** PkgLength (20.2.4): the length counts its own bytes. */
function pkgLength(contents: number): number[] {
  if (contents + 1 < 0x40) return [contents + 1];
  for (const bytes of [2, 3, 4]) {
    const total = contents + bytes;
    if (total < 2 ** (4 + 8 * (bytes - 1))) {
      const out = [((bytes - 1) << 6) | (total & 0x0f)];
      for (let i = 0; i < bytes - 1; i++) out.push((total >>> (4 + 8 * i)) & 0xff);
      return out;
    }
  }
  throw new RangeError(`${contents} bytes are too long for one AML package.`);
}

const packaged = (opcode: readonly number[], contents: Aml): Aml => [
  ...opcode,
  ...pkgLength(contents.length),
  ...contents,
];
const joined = (terms: readonly Aml[]): number[] => terms.flatMap((term) => [...term]);

const SEGMENT = /^[A-Z_][A-Z0-9_]{0,3}$/;

/** A name: `\_SB.PCI0`, `^CRS`, `FOO` (20.2.2). @throws RangeError for what is none. */
export function path(text: string): Aml {
  const prefix = /^(?:\\|\^*)/.exec(text)?.[0] ?? '';
  const segments = text.slice(prefix.length).split('.').filter(Boolean);
  const out = [...Buffer.from(prefix)];
  for (const segment of segments) if (!SEGMENT.test(segment)) throw new RangeError(`"${text}" is not an ACPI name.`);
  if (segments.length === 0) return [...out, 0];
  if (segments.length === 2) out.push(0x2e);
  else if (segments.length > 2) out.push(0x2f, segments.length);
  return [...out, ...Buffer.from(segments.map((segment) => segment.padEnd(4, '_')).join(''))];
}

/** An unsigned integer of up to 64 bits, in its shortest form. */
export function integer(value: number | bigint): Aml {
  const big = BigInt(value);
  if (big < 0n || big >> 64n) throw new RangeError(`${value} is not a 64-bit integer.`);
  if (big === 0n) return [0x00];
  if (big === 1n) return [0x01];
  for (const [opcode, bytes] of [
    [0x0a, 1],
    [0x0b, 2],
    [0x0c, 4],
    [0x0e, 8],
  ] as const) {
    if (big < 1n << BigInt(8 * bytes)) {
      return [opcode, ...Array.from({ length: bytes }, (_, i) => Number((big >> BigInt(8 * i)) & 0xffn))];
    }
  }
  return [];
}

export const string = (text: string): Aml => [0x0d, ...Buffer.from(text, 'latin1'), 0];

/** A compressed EISA id such as `PNP0501` (19.3.4). */
export function eisaId(id: string): Aml {
  if (!/^[A-Z]{3}[0-9A-F]{4}$/.test(id)) throw new RangeError(`"${id}" is not an EISA id.`);
  const [a, b, c] = [...id].map((char) => char.charCodeAt(0) - 0x40);
  const product = Number.parseInt(id.slice(3), 16);
  const word = (a << 10) | (b << 5) | c;
  // Always a DWord, however small: that is how compilers write it and readers know it.
  return [0x0c, word >> 8, word & 0xff, product >> 8, product & 0xff];
}

export const buffer = (bytes: readonly number[]): Aml => packaged([0x11], [...integer(bytes.length), ...bytes]);
export function packageOf(...elements: readonly Aml[]): Aml {
  if (elements.length > 255) throw new RangeError(`A package of ${elements.length} elements has more than 255.`);
  return packaged([0x12], [elements.length, ...joined(elements)]);
}

export const name = (where: string, value: Aml): Aml => [0x08, ...path(where), ...value];
export const scope = (where: string, ...terms: readonly Aml[]): Aml =>
  packaged([0x10], [...path(where), ...joined(terms)]);
export const device = (where: string, ...terms: readonly Aml[]): Aml =>
  packaged([EXT, 0x82], [...path(where), ...joined(terms)]);

/** @param args 0–7. @param serialized one caller at a time. */
export const method = (where: string, args: number, serialized: boolean, ...terms: readonly Aml[]): Aml =>
  packaged([0x14], [...path(where), args | (serialized ? 0x08 : 0), ...joined(terms)]);

export const SPACE = { systemMemory: 0, systemIo: 1, pciConfig: 2 } as const;
export const operationRegion = (where: string, space: number, offset: Aml, length: Aml): Aml => [
  EXT,
  0x80,
  ...path(where),
  space,
  ...offset,
  ...length,
];

/** Access type of a field's region. */
export const ACCESS = { any: 0, byte: 1, word: 2, dword: 3, qword: 4 } as const;
/** What a write does to the bits around a field. */
export const UPDATE = { preserve: 0x00, ones: 0x20, zeros: 0x40 } as const;

/**
 * Field units over a region.
 * @param units name and width in bits; a unit without a name skips that many bits.
 */
export function field(
  region: string,
  access: number,
  update: number,
  units: readonly { readonly name?: string; readonly bits: number }[],
): Aml {
  const list = units.flatMap(({ name: unit, bits }) => [...(unit ? path(unit) : [0x00]), ...fieldLength(bits)]);
  return packaged([EXT, 0x81], [...path(region), access | update, ...list]);
}

/** A field's width is written like a PkgLength that does not count itself. */
function fieldLength(bits: number): number[] {
  if (bits < 0x40) return [bits];
  for (const bytes of [2, 3, 4]) {
    if (bits < 2 ** (4 + 8 * (bytes - 1))) {
      const out = [((bytes - 1) << 6) | (bits & 0x0f)];
      for (let i = 0; i < bytes - 1; i++) out.push((bits >>> (4 + 8 * i)) & 0xff);
      return out;
    }
  }
  throw new RangeError(`A field of ${bits} bits is too wide.`);
}

export const mutex = (where: string, level = 0): Aml => [EXT, 0x01, ...path(where), level];
export const acquire = (where: string, timeoutMs = 0xffff): Aml => [
  EXT,
  0x23,
  ...path(where),
  timeoutMs & 0xff,
  timeoutMs >> 8,
];
export const release = (where: string): Aml => [EXT, 0x27, ...path(where)];

export const local = (index: number): Aml => [0x60 + index];
export const arg = (index: number): Aml => [0x68 + index];

const NULL_NAME = [0x00];
const binary =
  (opcode: number) =>
  (left: Aml, right: Aml, target: Aml = NULL_NAME): Aml => [opcode, ...left, ...right, ...target];
const logical =
  (...opcode: number[]) =>
  (left: Aml, right: Aml): Aml => [...opcode, ...left, ...right];

export const store = (value: Aml, target: Aml): Aml => [0x70, ...value, ...target];
export const add = binary(0x72);
export const subtract = binary(0x74);
export const shiftLeft = binary(0x79);
export const shiftRight = binary(0x7a);
export const and = binary(0x7b);
export const or = binary(0x7d);
export const increment = (target: Aml): Aml => [0x75, ...target];
export const index = binary(0x88);
export const derefOf = (reference: Aml): Aml => [0x83, ...reference];
export const sizeOf = (object: Aml): Aml => [0x87, ...object];
export const notify = (object: Aml, value: Aml): Aml => [0x86, ...object, ...value];
export const lAnd = logical(0x90);
export const lOr = logical(0x91);
export const lNot = (value: Aml): Aml => [0x92, ...value];
export const lEqual = logical(0x93);
export const lGreater = logical(0x94);
export const lLess = logical(0x95);

export const ifThen = (condition: Aml, ...terms: readonly Aml[]): Aml =>
  packaged([0xa0], [...condition, ...joined(terms)]);
/** Stands right behind its `ifThen`. */
export const elseThen = (...terms: readonly Aml[]): Aml => packaged([0xa1], joined(terms));
export const whileDo = (condition: Aml, ...terms: readonly Aml[]): Aml =>
  packaged([0xa2], [...condition, ...joined(terms)]);
export const giveBack = (value: Aml): Aml => [0xa4, ...value];
/** A method call: its name, then its arguments. */
export const call = (where: string, ...args: readonly Aml[]): Aml => [...path(where), ...joined(args)];
