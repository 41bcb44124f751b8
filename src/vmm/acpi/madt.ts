import { join, littleEndian } from './aml_encoding.ts';
import type { AcpiBoard, AcpiCpu } from './board.ts';
import { table } from './table.ts';

/** 5 is the first revision with "online capable". */
const MADT_REVISION = 5;
const LOCAL_APIC_ADDRESS = 0xfee00000;
/** There are two 8259s besides. */
const PCAT_COMPAT = 1;

/** Local APIC flags (table 5.22). */
const ENABLED = 1 << 0;
const ONLINE_CAPABLE = 1 << 1;

/** MPS INTI flags (table 5.26). */
const CONFORMS = 0;
const ACTIVE_HIGH_LEVEL = 0b1101;

/** An 8-bit local APIC says 255 for "all": from there on an entry is an x2APIC's. */
const FIRST_X2APIC = 255;
const NMI_LINT = 1;
/** What ISA interrupt 0, the PIT, is wired to on an IOAPIC. */
const TIMER_GSI = 2;

const u16 = (value: number) => littleEndian(value, 2);
const u32 = (value: number) => littleEndian(value, 4);

/** Does the processor need the wide kind of entry? */
export const isX2apic = ({ apicId, uid }: AcpiCpu) => apicId >= FIRST_X2APIC || uid >= FIRST_X2APIC;

/** A processor's entry, in the MADT or in its own _MAT. */
export function localApic(cpu: AcpiCpu): Uint8Array {
  const flags = cpu.online ? ENABLED : ONLINE_CAPABLE;
  return isX2apic(cpu)
    ? join(9, 16, u16(0), u32(cpu.apicId), u32(flags), u32(cpu.uid))
    : join(0, 8, cpu.uid, cpu.apicId, u32(flags));
}

/** Multiple APIC Description Table (ACPI specification 6.4, section 5.2.12). */
export function madt(board: AcpiBoard): Uint8Array {
  const processors = board.cpus.map(localApic);
  const { id, address, gsiBase } = board.ioapic;
  const interrupts = [
    join(1, 12, id, 0, u32(address), u32(gsiBase)),
    sourceOverride(0, TIMER_GSI, CONFORMS),
    ...[board.sci, ...(board.levelIrqs ?? [])].map((irq) => sourceOverride(irq, irq, ACTIVE_HIGH_LEVEL)),
    join(4, 6, 0xff, u16(CONFORMS), NMI_LINT),
  ];
  if (board.cpus.some(isX2apic)) {
    interrupts.push(join(10, 12, u16(CONFORMS), u32(0xffffffff), NMI_LINT, 0, 0, 0));
  }
  return table('APIC', MADT_REVISION, join(u32(LOCAL_APIC_ADDRESS), u32(PCAT_COMPAT), ...processors, ...interrupts));
}

const sourceOverride = (irq: number, gsi: number, flags: number) => join(2, 10, 0, irq, u32(gsi), u16(flags));
