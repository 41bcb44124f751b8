/**
 * ACPI Machine Language, written as nested calls that give bytes (ACPI specification 6.4, chapter 20). Functions
 * are named like the ASL operators that compile to the same bytes; where ASL's word is one of TypeScript's, a
 * second word stands behind it. Numbers as operands become integers.
 */
import {
  type Aml,
  buffer,
  eisaId,
  fieldLength,
  integer,
  join,
  littleEndian,
  nameSegment,
  ones,
  packaged,
  path,
  string,
  uuid,
} from './aml_encoding.ts';

export { type Aml, buffer, eisaId, integer, ones, path, string, uuid };

/** A term that gives a value: encoded AML, or a constant. */
export type Operand = Aml | number | bigint;
/** What takes or names an object: encoded AML (`path`, `local`, `index` …), or a name. */
export type Name = Aml | string;

const EXT = 0x5b;
const NULL_NAME: Aml = Uint8Array.of(0x00);

const term = (operand: Operand): Aml => (operand instanceof Uint8Array ? operand : integer(operand));
const object = (name: Name): Aml => (typeof name === 'string' ? path(name) : name);

function inRange(value: number, max: number, what: string): number {
  if (!Number.isInteger(value) || value < 0 || value > max) {
    throw new RangeError(`${what} is ${value}: it must be from 0 to ${max}.`);
  }
  return value;
}

/** Terms behind each other. */
export const terms = (...list: readonly Aml[]): Aml => join(...list);

// Data objects (20.2.3)

/** Package; with more than 255 elements it becomes a VarPackage, as compilers do. */
export function packageOf(...elements: readonly Operand[]): Aml {
  const list = elements.map(term);
  return list.length > 255 ? packaged([0x13], integer(list.length), ...list) : packaged([0x12], list.length, ...list);
}

/** Package whose number of elements is computed. */
export const varPackage = (count: Operand, ...elements: readonly Operand[]): Aml =>
  packaged([0x13], term(count), ...elements.map(term));

// Named objects (20.2.5)

export const name = (where: string, value: Operand): Aml => join(0x08, path(where), term(value));
export const alias = (source: string, where: string): Aml => join(0x06, path(source), path(where));
export const scope = (where: string, ...list: readonly Aml[]): Aml => packaged([0x10], path(where), ...list);
export const device = (where: string, ...list: readonly Aml[]): Aml => packaged([EXT, 0x82], path(where), ...list);
export const thermalZone = (where: string, ...list: readonly Aml[]): Aml => packaged([EXT, 0x85], path(where), ...list);
/** @param systemLevel deepest S-state that needs it on. @param order in which resources are switched on. */
export const powerResource = (where: string, systemLevel: number, order: number, ...list: readonly Aml[]): Aml =>
  packaged([EXT, 0x84], path(where), inRange(systemLevel, 5, 'System level'), littleEndian(order, 2), ...list);

/** Kinds of objects in `external` (19.6.44). */
export const OBJECT = {
  unknown: 0,
  integer: 1,
  string: 2,
  buffer: 3,
  package: 4,
  device: 6,
  method: 8,
  mutex: 9,
} as const;
/** An object that another table defines. @param args arguments, when it is a method. */
export const external = (where: string, kind: number, args = 0): Aml =>
  join(0x15, path(where), kind, inRange(args, 7, 'Number of arguments'));

export interface MethodOptions {
  /** Number of arguments, 0–7. */
  readonly args?: number;
  /** One caller at a time: needed by a method that makes named objects. */
  readonly serialized?: boolean;
  readonly syncLevel?: number;
}

export function method(where: string, options: MethodOptions, ...body: readonly Aml[]): Aml {
  const { args = 0, serialized = false, syncLevel = 0 } = options;
  const flags =
    inRange(args, 7, 'Number of arguments') | (serialized ? 0x08 : 0) | (inRange(syncLevel, 15, 'Sync level') << 4);
  return packaged([0x14], path(where), flags, ...body);
}

export const mutex = (where: string, syncLevel = 0): Aml =>
  join(EXT, 0x01, path(where), inRange(syncLevel, 15, 'Sync level'));
export const event = (where: string): Aml => join(EXT, 0x02, path(where));

/** Address spaces of an operation region (table 5.162). */
export const SPACE = { systemMemory: 0, systemIo: 1, pciConfig: 2, cmos: 5, pciBarTarget: 6 } as const;

/** @param offset first address in the space. @param length in bytes. */
export const operationRegion = (where: string, space: number, offset: Operand, length: Operand): Aml =>
  join(EXT, 0x80, path(where), space, term(offset), term(length));

export const ACCESS = { any: 0, byte: 1, word: 2, dword: 3, qword: 4, buffer: 5 } as const;
/** What a write does to the bits around a field. */
export const UPDATE = { preserve: 0, writeAsOnes: 1, writeAsZeros: 2 } as const;

/** A named unit of some bits, a gap of some bits, or a place in bytes from the start of the region. */
export type FieldUnit =
  | { readonly name: string; readonly bits: number }
  | { readonly skip: number }
  | { readonly offset: number };

export interface FieldOptions {
  readonly access: keyof typeof ACCESS;
  /** Take the global lock for each access. */
  readonly lock?: boolean;
  readonly update?: keyof typeof UPDATE;
}

function fieldList({ access, lock = false, update = 'preserve' }: FieldOptions, units: readonly FieldUnit[]): Aml {
  let bit = 0;
  const list: Aml[] = [];
  for (const unit of units) {
    const width = 'bits' in unit ? unit.bits : 'skip' in unit ? unit.skip : unit.offset * 8 - bit;
    if (width < 0) throw new RangeError(`A field unit is at bit ${bit + width}, in front of the one before it.`);
    bit += width;
    if ('name' in unit) list.push(join(nameSegment(unit.name), fieldLength(width)));
    else if (width > 0) list.push(join(0x00, fieldLength(width)));
  }
  return join(ACCESS[access] | (lock ? 0x10 : 0) | (UPDATE[update] << 5), ...list);
}

/** Names for the bits of an operation region. */
export const field = (region: string, options: FieldOptions, ...units: readonly FieldUnit[]): Aml =>
  packaged([EXT, 0x81], path(region), fieldList(options, units));
/** Field units behind an index and a data register. */
export const indexField = (index: string, data: string, options: FieldOptions, ...units: readonly FieldUnit[]): Aml =>
  packaged([EXT, 0x86], path(index), path(data), fieldList(options, units));
/** Field units that are there while `bank` has a value. */
export const bankField = (
  region: string,
  bank: string,
  value: Operand,
  options: FieldOptions,
  ...units: readonly FieldUnit[]
): Aml => packaged([EXT, 0x87], path(region), path(bank), term(value), fieldList(options, units));

const createField =
  (opcode: number) =>
  (source: Name, index: Operand, where: string): Aml =>
    join(opcode, object(source), term(index), path(where));
/** Names for parts of a buffer; the index counts bytes. */
export const createDWordField = createField(0x8a);
export const createWordField = createField(0x8b);
export const createByteField = createField(0x8c);
export const createQWordField = createField(0x8f);
/** Index in bits. */
export const createBitField = createField(0x8d);
/** Index and width in bits. */
export const createBitsField = (source: Name, index: Operand, bits: Operand, where: string): Aml =>
  join(EXT, 0x13, object(source), term(index), term(bits), path(where));

// Arguments and locals (20.2.6)

/** Local0–Local7. */
export const local = (index: number): Aml => Uint8Array.of(0x60 + inRange(index, 7, 'Number of a local'));
/** Arg0–Arg6. */
export const arg = (index: number): Aml => Uint8Array.of(0x68 + inRange(index, 6, 'Number of an argument'));
/** What is stored to it appears in the debugger's output. */
export const debug: Aml = Uint8Array.of(EXT, 0x31);

// Statements (20.2.5.3)

export const ifThen = (condition: Operand, ...list: readonly Aml[]): Aml => packaged([0xa0], term(condition), ...list);
/** Stands right behind its `ifThen`. */
export const elseThen = (...list: readonly Aml[]): Aml => packaged([0xa1], ...list);
export const whileDo = (condition: Operand, ...list: readonly Aml[]): Aml => packaged([0xa2], term(condition), ...list);
export const breakLoop: Aml = Uint8Array.of(0xa5);
export const continueLoop: Aml = Uint8Array.of(0x9f);
export const noop: Aml = Uint8Array.of(0xa3);
export const returnValue = (value: Operand): Aml => join(0xa4, term(value));
export const notify = (target: Name, value: Operand): Aml => join(0x86, object(target), term(value));
/** @param timeoutMs milliseconds; 0xffff waits for ever. */
export const acquire = (where: Name, timeoutMs = 0xffff): Aml =>
  join(EXT, 0x23, object(where), littleEndian(timeoutMs, 2));
export const release = (where: Name): Aml => join(EXT, 0x27, object(where));
export const signal = (where: Name): Aml => join(EXT, 0x24, object(where));
export const wait = (where: Name, timeoutMs: Operand): Aml => join(EXT, 0x25, object(where), term(timeoutMs));
export const resetEvent = (where: Name): Aml => join(EXT, 0x26, object(where));
/** Milliseconds; the processor does other things. */
export const sleep = (ms: Operand): Aml => join(EXT, 0x22, term(ms));
/** Microseconds, at most 100; the processor waits. */
export const stall = (us: Operand): Aml => join(EXT, 0x21, term(us));
/** A method call: its name, then its arguments. */
export const call = (where: string, ...args: readonly Operand[]): Aml => join(path(where), ...args.map(term));

// Expressions (20.2.5.4). A target that is left out is none.

const binary =
  (opcode: number) =>
  (left: Operand, right: Operand, target: Name = NULL_NAME): Aml =>
    join(opcode, term(left), term(right), object(target));
const unary =
  (opcode: number) =>
  (operand: Operand, target: Name = NULL_NAME): Aml =>
    join(opcode, term(operand), object(target));
const logical =
  (...opcode: number[]) =>
  (left: Operand, right: Operand): Aml =>
    join(...opcode, term(left), term(right));

export const store = (value: Operand, target: Name): Aml => join(0x70, term(value), object(target));
export const copyObject = (value: Operand, target: Name): Aml => join(0x9d, term(value), object(target));
export const add = binary(0x72);
export const concatenate = binary(0x73);
export const subtract = binary(0x74);
export const multiply = binary(0x77);
export const divide = (left: Operand, right: Operand, remainder: Name = NULL_NAME, quotient: Name = NULL_NAME): Aml =>
  join(0x78, term(left), term(right), object(remainder), object(quotient));
export const shiftLeft = binary(0x79);
export const shiftRight = binary(0x7a);
export const and = binary(0x7b);
export const nand = binary(0x7c);
export const or = binary(0x7d);
export const nor = binary(0x7e);
export const xor = binary(0x7f);
export const not = unary(0x80);
export const findSetLeftBit = unary(0x81);
export const findSetRightBit = unary(0x82);
/** Joins two resource templates. */
export const concatenateResTemplate = binary(0x84);
export const mod = binary(0x85);
export const index = binary(0x88);
export const increment = (target: Name): Aml => join(0x75, object(target));
export const decrement = (target: Name): Aml => join(0x76, object(target));
export const refOf = (target: Name): Aml => join(0x71, object(target));
export const derefOf = (reference: Name): Aml => join(0x83, object(reference));
export const condRefOf = (target: Name, result: Name = NULL_NAME): Aml =>
  join(EXT, 0x12, object(target), object(result));
export const sizeOf = (target: Name): Aml => join(0x87, object(target));
export const objectType = (target: Name): Aml => join(0x8e, object(target));
export const toBuffer = unary(0x96);
export const toDecimalString = unary(0x97);
export const toHexString = unary(0x98);
export const toInteger = unary(0x99);
export const toStringOf = (source: Operand, length: Operand = ones, target: Name = NULL_NAME): Aml =>
  join(0x9c, term(source), term(length), object(target));
/** Part of a string or buffer. */
export const mid = (source: Operand, from: Operand, length: Operand, target: Name = NULL_NAME): Aml =>
  join(0x9e, term(source), term(from), term(length), object(target));
/** Time since boot in units of 100 ns. */
export const timer: Aml = Uint8Array.of(EXT, 0x33);

export const lAnd = logical(0x90);
export const lOr = logical(0x91);
export const lNot = (value: Operand): Aml => join(0x92, term(value));
export const lEqual = logical(0x93);
export const lGreater = logical(0x94);
export const lLess = logical(0x95);
export const lNotEqual = logical(0x92, 0x93);
export const lLessEqual = logical(0x92, 0x94);
export const lGreaterEqual = logical(0x92, 0x95);
