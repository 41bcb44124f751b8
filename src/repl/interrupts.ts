/** Tables of interrupts: who sends them, what they pass through, and what the vCPUs have of them. */
import type { InterruptReport, LapicReport, VectorEntry } from '../client/interrupts.ts';
import type { MachineClient, PciFunctionReport } from '../client/machine_client.ts';
import { table } from '../client/text_table.ts';
import { ConfigView } from './pci_config.ts';

const hex = (value: number) => `0x${value.toString(16)}`;

/** Edge and active high are what is usual. */
const wires = ({ level, activeLow, remoteIrr }: VectorEntry) =>
  [level ? 'level' : 'edge', ...(activeLow ? ['active low'] : []), ...(remoteIrr ? ['being served'] : [])].join(', ');

/** MSI-X, INTx, the I/O APIC and the PICs. */
export async function tellInterrupts(machine: MachineClient): Promise<string> {
  const [{ pci: functions }, { ioapic, pics }] = await Promise.all([machine.devices(), machine.interrupts()]);
  return [msixOf(functions), ...intxOf(functions), tellIoapic(ioapic), tellPics(pics)].join('\n\n');
}

function msixOf(functions: readonly PciFunctionReport[]): string {
  const rows = functions.flatMap(({ name, msix }) =>
    (msix ?? [])
      .filter(({ address, masked }) => address !== 0 || !masked)
      .map(({ vector, address, data, masked, pending }) => [
        name,
        vector,
        // Intel SDM volume 3, 11.11: the destination is in bits 12 to 19 of the address, the vector in the data.
        `apic ${(address >>> 12) & 0xff}`,
        hex(data & 0xff),
        [...(masked ? ['masked'] : []), ...(pending ? ['pending'] : [])].join(', '),
      ]),
  );
  return rows.length > 0 ? table(['device', 'entry', 'to', 'vector', ''], rows) : 'No device uses MSI-X.';
}

/** Functions that have an interrupt pin. */
function intxOf(functions: readonly PciFunctionReport[]): string[] {
  const rows = functions.flatMap(({ name, config }) => {
    const intx = new ConfigView(config).intx;
    return intx ? [[name, intx.pin, intx.line ?? '', intx.state]] : [];
  });
  return rows.length > 0 ? [table(['device', 'pin', 'line', ''], rows)] : [];
}

/** Pins that the guest has set up, or whose line is raised. A pin has the number of its GSI; IRQ 0 is at pin 2. */
function tellIoapic({ pins }: InterruptReport['ioapic']): string {
  const rows = pins
    .filter(({ masked, pending }) => !masked || pending)
    .map((pin) => [
      pin.pin,
      `${pin.logical ? 'logical' : 'apic'} ${pin.logical ? hex(pin.destination) : pin.destination}`,
      hex(pin.vector),
      ...[pin.mode, wires(pin), [...(pin.masked ? ['masked'] : []), ...(pin.pending ? ['raised'] : [])].join(', ')],
    ]);
  if (rows.length === 0) return `All ${pins.length} pins of the I/O APIC are masked.`;
  return table(['I/O APIC pin', 'to', 'vector', 'mode', 'line', ''], rows);
}

function tellPics(pics: InterruptReport['pics']): string {
  const lines = (mask: number, first: number) =>
    Array.from({ length: 8 }, (_, line) => line)
      .filter((line) => mask & (1 << line))
      .map((line) => first + line)
      .join(' ') || 'none';
  return table(
    ['PIC', 'vectors from', 'open lines', 'requested', 'in service', 'level-triggered'],
    pics.map(({ name, base, imr, irr, isr, elcr }) => {
      const first = name === 'master' ? 0 : 8;
      return [name, hex(base), lines(~imr & 0xff, first), lines(irr, first), lines(isr, first), lines(elcr, first)];
    }),
  );
}

/** Local vectors that are open, the timer, and vectors. */
export async function tellLocalApics(machine: MachineClient): Promise<string> {
  const { lapics } = await machine.interrupts();
  return lapics.map(tellLapic).join('\n\n');
}

function tellLapic(lapic: LapicReport): string {
  const { vcpu, apicId, x2apic, enabled, timer, lvt, inService, requested, taskPriority, processorPriority } = lapic;
  const state = `${x2apic ? 'x2APIC' : 'xAPIC'}, ${enabled ? 'on' : 'off'}`;
  const vectors = (list: readonly number[]) => list.map(hex).join(' ') || 'none';
  const count =
    timer.mode === 'TSC-deadline' ? '' : `, ${timer.current} of ${timer.initial}, divided by ${timer.divide}`;
  const open = lvt.filter(({ name, masked }) => !masked && name !== 'timer');
  const tick = lvt.find(({ name }) => name === 'timer');
  const vector = tick && !tick.masked ? `, vector ${hex(tick.vector)}` : ', masked';
  return [
    `vCPU ${vcpu}: APIC id ${apicId}, ${state}, task priority ${hex(taskPriority)}, processor priority ${hex(processorPriority)}`,
    `  in service ${vectors(inService)}; requested ${vectors(requested)}`,
    `  timer: ${timer.mode}${count}${vector}`,
    ...open.map((entry) => `  ${entry.name}: ${entry.mode === 'fixed' ? `vector ${hex(entry.vector)}` : entry.mode}`),
  ].join('\n');
}
