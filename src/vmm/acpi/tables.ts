import type { AcpiBoard } from './board.ts';
import { dsdt } from './dsdt.ts';
import { facs, fadt } from './fadt.ts';
import { hpet } from './hpet.ts';
import { madt } from './madt.ts';
import { nfit } from './nfit.ts';
import { hmat, slit, srat } from './numa.ts';
import { mcfg } from './pci.ts';
import { RSDP_SIZE, rsdp, waet, xsdt } from './root_tables.ts';
import { table } from './table.ts';

/** A DSDT of revision 2 or more has 64-bit integers. */
const DSDT_REVISION = 2;

export interface AcpiImage {
  /** All tables, to be placed at the base that was asked for. */
  readonly bytes: Uint8Array;
  /** Guest address of the RSDP. */
  readonly rsdp: number;
  /** Each table by signature, for judges. */
  readonly tables: ReadonlyMap<string, Uint8Array>;
}

const align = (value: number, to: number) => Math.ceil(value / to) * to;

/**
 * All ACPI tables of a machine, laid out from guest address `base` on.
 *
 * They stand together in the BIOS area, 0xe0000–0xfffff, the RSDP first: a guest that is given no RSDP address
 * finds it there by a search on 16-byte boundaries. 254 processors with all devices take 12 KiB of the 128.
 *
 * @param limit bytes that there are at `base`.
 * @throws RangeError when the tables need more.
 */
export function buildAcpi(board: AcpiBoard, base: number, limit = 0x20000): AcpiImage {
  const pieces: { address: number; bytes: Uint8Array }[] = [];
  const tables = new Map<string, Uint8Array>();
  const rsdpAddress = align(base, 16);
  let next = rsdpAddress + RSDP_SIZE;
  const place = (signature: string, bytes: Uint8Array, alignment = 16): number => {
    const address = align(next, alignment);
    pieces.push({ address, bytes });
    next = address + bytes.length;
    tables.set(signature, bytes);
    return address;
  };
  const facsAddress = place('FACS', facs(), 64);
  const dsdtAddress = place('DSDT', table('DSDT', DSDT_REVISION, dsdt(board)));
  // The FADT comes first in the list.
  const listed = [
    place('FACP', fadt(board, facsAddress, dsdtAddress)),
    place('APIC', madt(board)),
    place('WAET', waet()),
    ...(board.hpet === undefined ? [] : [place('HPET', hpet(board.hpet))]),
    ...(board.pci?.ecamBase === undefined ? [] : [place('MCFG', mcfg(board.pci.ecamBase, board.pci.lastBus))]),
    ...(board.numa ? [place('SRAT', srat(board.cpus, board.numa)), place('SLIT', slit(board.numa))] : []),
    ...(board.numa?.attributes ? [place('HMAT', hmat(board.numa.attributes))] : []),
    ...(board.nvdimm ? [place('NFIT', nfit(board.nvdimm.structures))] : []),
  ];
  const xsdtAddress = place('XSDT', xsdt(listed));
  pieces.push({ address: rsdpAddress, bytes: rsdp(xsdtAddress) });
  if (next - base > limit) {
    throw new RangeError(
      `The ACPI tables of ${board.cpus.length} processors take ${next - base} bytes, but there is room for ${limit}.`,
    );
  }
  const bytes = new Uint8Array(next - base);
  for (const piece of pieces) bytes.set(piece.bytes, piece.address - base);
  return { bytes, rsdp: rsdpAddress, tables };
}
