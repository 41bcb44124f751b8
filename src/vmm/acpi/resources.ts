/** Resource descriptors of _CRS, _PRS and _SRS (ACPI specification 6.4, section 6.4). */
import { type Aml, buffer, join, littleEndian } from './aml_encoding.ts';

/** One encoded descriptor. */
export type Descriptor = Uint8Array;

const u16 = (value: number) => littleEndian(value, 2);
const u32 = (value: number) => littleEndian(value, 4);

/** A _CRS buffer: descriptors and the end tag, whose checksum of zero means that there is none (6.4.2.9). */
export const resourceTemplate = (...descriptors: readonly Descriptor[]): Aml =>
  buffer(join(...descriptors, 0x79, 0x00));

/** Small items (6.4.2) */

/** I/O ports. @param port first. @param length number of them, up to 255. @param last highest possible first port. */
export const io = (port: number, length: number, { alignment = 1, last = port } = {}): Descriptor =>
  join(0x47, 0x01, u16(port), u16(last), alignment, littleEndian(length, 1));

export interface IrqOptions {
  readonly trigger?: 'edge' | 'level';
  readonly polarity?: 'high' | 'low';
  readonly shared?: boolean;
  readonly wake?: boolean;
}

function irqMask(irqs: readonly number[]): Descriptor {
  for (const irq of irqs) if (!(irq >= 0 && irq < 16)) throw new RangeError(`${irq} is not an ISA interrupt.`);
  return u16(irqs.reduce((mask, irq) => mask | (1 << irq), 0));
}

/** ISA interrupts, one of which is taken: edge, active high, exclusive. */
export const irqNoFlags = (...irqs: readonly number[]): Descriptor => join(0x22, irqMask(irqs));
export const irq = ({ trigger, polarity, shared, wake }: IrqOptions, ...irqs: readonly number[]): Descriptor =>
  join(
    0x23,
    irqMask(irqs),
    (trigger === 'level' ? 0 : 1) | (polarity === 'low' ? 8 : 0) | (shared ? 16 : 0) | (wake ? 32 : 0),
  );

/** Large items (6.4.3) */

const large = (tag: number, body: Descriptor): Descriptor => join(tag, u16(body.length), body);

export const memory32Fixed = (address: number, length: number, writable: boolean): Descriptor =>
  large(0x86, join(writable ? 1 : 0, u32(address), u32(length)));

/** Interrupts by GSI. @param producer for a bridge or link device that hands them on. */
export const interrupt = (
  options: IrqOptions & { readonly producer?: boolean },
  ...gsis: readonly number[]
): Descriptor =>
  large(
    0x89,
    join(
      (options.producer ? 0 : 1) |
        (options.trigger === 'level' ? 0 : 2) |
        (options.polarity === 'low' ? 4 : 0) |
        (options.shared ? 8 : 0) |
        (options.wake ? 16 : 0),
      littleEndian(gsis.length, 1),
      ...gsis.map(u32),
    ),
  );

/** A register, for objects such as _PCT. @param space SPACE or 0x7f for functional fixed hardware. */
export const register = (space: number, bits: number, offset: number, address: bigint, accessSize = 0): Descriptor =>
  large(0x82, join(space, bits, offset, accessSize, littleEndian(address, 8)));

export interface AddressSpaceOptions {
  /** First and last address; bus numbers are addresses too. */
  readonly min: number | bigint;
  readonly max: number | bigint;
  /** Number of addresses; by default the whole range, which is then fixed. */
  readonly length?: number | bigint;
  /** A mask of the bits that an address leaves to the device: length − 1 of the smallest step. */
  readonly granularity?: number | bigint;
  /** What a bridge adds on its way to the secondary side. */
  readonly translation?: number | bigint;
  /** The device uses the range itself; a bridge (false, the default) hands it on. */
  readonly consumer?: boolean;
}

export interface MemoryOptions extends AddressSpaceOptions {
  readonly writable?: boolean;
  readonly caching?: 'none' | 'cacheable' | 'write-combining' | 'prefetchable';
}

const WIDTH = {
  word: { tag: 0x88, bytes: 2 },
  dword: { tag: 0x87, bytes: 4 },
  qword: { tag: 0x8a, bytes: 8 },
} as const;
export type AddressWidth = keyof typeof WIDTH;
const CACHING = { none: 0, cacheable: 1, 'write-combining': 2, prefetchable: 3 } as const;

function addressSpace(width: AddressWidth, type: number, typeFlags: number, options: AddressSpaceOptions): Descriptor {
  const { min, max, granularity = 0, translation = 0, consumer = false } = options;
  const whole = BigInt(max) - BigInt(min) + 1n;
  const length = options.length ?? whole;
  if (whole <= 0n || BigInt(length) > whole) {
    throw new RangeError(`An address range of ${length} from ${min} to ${max} cannot be.`);
  }
  const { tag, bytes } = WIDTH[width];
  const fixed = BigInt(length) === whole ? 0x0c : 0;
  const numbers = [granularity, min, max, translation, length].map((value) => littleEndian(value, bytes));
  return large(tag, join(type, fixed | (consumer ? 1 : 0), typeFlags, ...numbers));
}

/** Memory range of a bridge or device. */
export function memorySpace(width: 'dword' | 'qword', options: MemoryOptions): Descriptor {
  const { writable = true, caching = 'none' } = options;
  return addressSpace(width, 0, (writable ? 1 : 0) | (CACHING[caching] << 1), options);
}

/** I/O range, ISA and other ports alike. */
export const ioSpace = (width: AddressWidth, options: AddressSpaceOptions): Descriptor =>
  addressSpace(width, 1, 3, options);

/** PCI bus numbers. */
export const busNumbers = (options: AddressSpaceOptions): Descriptor => addressSpace('word', 2, 0, options);
