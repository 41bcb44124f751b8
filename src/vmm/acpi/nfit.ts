/** NVDIMM Firmware Interface Table (ACPI specification 6.4, section 5.2.25), with QEMU's numbers. */
import type { NvdimmPersistence } from '../../client/nvdimm.ts';
import { join, littleEndian, uuid } from './aml_encoding.ts';
import { table } from './table.ts';

const u8 = (value: number) => littleEndian(value, 1);
const u16 = (value: number) => littleEndian(value, 2);
const u32 = (value: number) => littleEndian(value, 4);
const u64 = (value: number | bigint) => littleEndian(value, 8);

const NFIT_REVISION = 1;

/** Address Range Type GUID of persistent memory (table 5.132). */
const PERSISTENT_MEMORY = '66f0d379-b4f3-4074-ac43-0d3318b78cdb';
/** The control region is for hot plug alone; the proximity domain is valid. */
const SPA_FLAGS = 0b11;
/** Of UEFI: write-back, non-volatile. */
const EFI_MEMORY_WB = 0x8n;
const EFI_MEMORY_NV = 0x8000n;

/** State flags of a region mapping: writes to it do not last (table 5.133). */
const NOT_ARMED = 1 << 3;

/** What QEMU's NVDIMMs are: vendor, device, revision; byte-addressable and without energy of its own (JEDEC). */
const VENDOR = 0x8086;
const DEVICE = 1;
const REVISION = 1;
const INTERFACE = 0x0301;
const FIRST_SERIAL = 0x123456;

/** Bits of the platform's capabilities (table 5.140), and the highest that is said anything about. */
const CAPABILITIES: Readonly<Record<NvdimmPersistence, number>> = { none: 0, 'mem-ctrl': 0b10, cpu: 0b11 };
const HIGHEST_CAPABILITY = 1;

export interface NfitNvdimm {
  readonly slot: number;
  readonly address: number;
  readonly size: number;
  readonly node: number;
  readonly readonly: boolean;
  /** Flush hint address; undefined for one that needs no flush. */
  readonly hint: number | undefined;
}

/** Handle by which _DSM and _ADR know an NVDIMM: 0 is the root device's. */
export const nfitHandle = (slot: number): number => slot + 1;
export const nfitSlot = (handle: number): number => handle - 1;

/** A structure: type and length, then the rest. */
const structure = (type: number, ...rest: readonly (number | Uint8Array)[]) => {
  const body = join(...rest);
  return join(u16(type), u16(4 + body.length), body);
};

/** All structures, as _FIT gives them. */
export function nfitStructures(nvdimms: readonly NfitNvdimm[], persistence: NvdimmPersistence): Uint8Array {
  return join(
    structure(7, u8(HIGHEST_CAPABILITY), new Uint8Array(3), u32(CAPABILITIES[persistence]), u32(0)),
    ...nvdimms.flatMap(describe),
  );
}

function describe({ slot, address, size, node, readonly, hint }: NfitNvdimm): Uint8Array[] {
  const handle = nfitHandle(slot);
  const range = 2 * handle;
  const control = range + 1;
  return [
    // System physical address range (5.2.25.2).
    structure(
      0,
      ...[u16(range), u16(SPA_FLAGS), u32(0), u32(node), uuid(PERSISTENT_MEMORY).subarray(-16)],
      ...[u64(address), u64(size), u64(EFI_MEMORY_WB | EFI_MEMORY_NV)],
    ),
    // Region mapping (5.2.25.3): all of the NVDIMM, not interleaved.
    structure(
      1,
      ...[u32(handle), u16(0), u16(0), u16(range), u16(control), u64(size), u64(0), u64(0)],
      ...[u16(0), u16(1), u16(readonly ? NOT_ARMED : 0), u16(0)],
    ),
    // Control region (5.2.25.6), without block windows.
    structure(
      4,
      ...[u16(control), u16(VENDOR), u16(DEVICE), u16(REVISION), u16(0), u16(0), u16(0), new Uint8Array(6)],
      ...[u32(FIRST_SERIAL + slot), u16(INTERFACE), u16(0), u64(0), u64(0), u64(0), u64(0), u64(0)],
      ...[u16(0), new Uint8Array(6)],
    ),
    // Flush hint addresses (5.2.25.8).
    ...(hint === undefined ? [] : [structure(6, u32(handle), u16(1), new Uint8Array(6), u64(hint))]),
  ];
}

/** The table, with what is there at boot. */
export const nfit = (structures: Uint8Array): Uint8Array => table('NFIT', NFIT_REVISION, join(u32(0), structures));
