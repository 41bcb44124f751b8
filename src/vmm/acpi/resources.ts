/** Resource descriptors of _CRS and _PRS (ACPI specification 6.4, section 6.4). */
import { type Aml, buffer } from './aml.ts';

type Descriptor = readonly number[];

const le16 = (value: number) => [value & 0xff, (value >>> 8) & 0xff];
const le32 = (value: number) => [...le16(value), ...le16(value >>> 16)];

/** Fixed I/O ports, decoded in 16 bits. */
export const io = (port: number, length: number): Descriptor => [
  0x47,
  0x01,
  ...le16(port),
  ...le16(port),
  0x01,
  length,
];

/** An ISA interrupt: edge, active high, exclusive. */
export const irqNoFlags = (irq: number): Descriptor => [0x22, ...le16(1 << irq)];

export const memory32Fixed = (address: number, length: number, writable: boolean): Descriptor => [
  0x86,
  ...le16(9),
  writable ? 1 : 0,
  ...le32(address),
  ...le32(length),
];

/** A _CRS buffer: descriptors and the end tag, whose checksum of zero means "not checked". */
export const resourceTemplate = (...descriptors: readonly Descriptor[]): Aml =>
  buffer([...descriptors.flatMap((each) => [...each]), 0x79, 0x00]);
