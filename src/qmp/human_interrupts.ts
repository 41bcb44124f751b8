/** `info pic` and `info lapic`. */
import type { IoapicPin, LapicReport, VectorEntry } from '../client/interrupts.ts';
import type { Monitor } from './monitor.ts';

const byte = (value: number) => value.toString(16).padStart(2, '0');
const long = (value: number) => `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
const listed = (numbers: readonly number[]) => (numbers.length > 0 ? numbers.join(' ') : '(none)');

const wires = ({ activeLow, level, masked }: VectorEntry) =>
  `${activeLow ? 'active-lo' : 'active-hi'} ${level ? 'level' : 'edge '} ${masked ? 'masked' : '      '}`;

function pinRow({ pin, raw, destination, logical, mode, vector, ...wire }: IoapicPin): string {
  const where = `${raw} dest=${destination.toString(16)} vec=${String(vector).padEnd(3)}`;
  const how = `${mode.padEnd(6)} ${logical ? 'logical' : 'physical'}`;
  return `  pin ${String(pin).padEnd(2)} ${where} ${wires({ raw, mode, vector, ...wire })} ${how}`;
}

export async function tellPic({ machine }: Monitor): Promise<string[]> {
  const { ioapic, pics } = await machine.interrupts();
  const pinsWith = (what: 'pending' | 'remoteIrr') =>
    listed(ioapic.pins.filter((pin) => pin[what]).map(({ pin }) => pin));
  return [
    `ioapic0: id=0x${byte(ioapic.id)}`,
    ...ioapic.pins.map(pinRow),
    `  IRR            ${pinsWith('pending')}`,
    `  Remote IRR     ${pinsWith('remoteIrr')}`,
    // QEMU begins with the one whose number is higher.
    ...pics.toReversed().map(({ name, irr, imr, isr, highest, base, elcr, specialFullyNested }) => {
      const registers = `irr=${byte(irr)} imr=${byte(imr)} isr=${byte(isr)} hprio=${highest} irq_base=${byte(base)}`;
      return `pic${name === 'master' ? 0 : 1}: ${registers} elcr=${byte(elcr)} fnm=${specialFullyNested ? 1 : 0}`;
    }),
  ];
}

const LVT_NAMES: Readonly<Record<string, string>> = {
  ...{ LINT0: 'LVT0', LINT1: 'LVT1', performance: 'LVTPC', error: 'LVTERR', thermal: 'LVTTHMR', timer: 'LVTT' },
};

function lapicRows(lapic: LapicReport): string[] {
  const { vcpu, x2apic, enabled, spurious, icr, errors, timer, lvt, inService, requested, levels } = lapic;
  const vectors = (list: readonly number[]) =>
    listed(list).replaceAll(/\d+/g, (vector) => (levels.includes(Number(vector)) ? `${vector}(level)` : vector));
  const [low, high] = icr;
  return [
    `dumping local APIC state for CPU ${vcpu}`,
    '',
    ...lvt.map((entry) => {
      const mode = entry.name === 'timer' ? timer.mode : entry.name === 'error' ? '' : entry.mode;
      const vector = entry.mode === 'fixed' ? `(vec ${entry.vector})` : '';
      return `${LVT_NAMES[entry.name]}\t ${entry.raw} ${wires(entry)} ${mode.padEnd(12)} ${vector}`.trimEnd();
    }),
    `Timer\t divide by ${timer.divide} initial_count = ${timer.initial} current_count = ${timer.current}`,
    `SPIV\t APIC ${enabled ? 'enabled' : 'disabled'}, spurious vec ${spurious}`,
    `ICR\t ${long(low)}`,
    `ICR2\t ${long(high)}${x2apic ? ' (X2APIC ID)' : ''}`,
    `ESR\t ${long(errors)}`,
    `ISR\t ${vectors(inService)}`,
    `IRR\t ${vectors(requested)}`,
    '',
    `TPR 0x${byte(lapic.taskPriority)} DFR ${long(lapic.destinationFormat)} LDR ${long(lapic.logicalDestination)} PPR 0x${byte(lapic.processorPriority)}`,
  ];
}

/** @param words an APIC id, or the vCPU that was chosen. */
export async function tellLapic({ machine }: Monitor, [id]: readonly string[], cpu: number): Promise<string[]> {
  const { lapics } = await machine.interrupts();
  const found = lapics.find(({ vcpu, apicId }) => (id === undefined ? vcpu === cpu : apicId === Number(id)));
  return found ? lapicRows(found) : ['No local APIC'];
}
