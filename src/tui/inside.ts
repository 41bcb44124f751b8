/** What stands inside of what is chosen in a pane, as text. */
import type { VirtioReport } from '../client/machine_client.ts';
import { statusOf, typeName } from '../repl/info.ts';
import type { Vm } from '../repl/vm.ts';
import type { ViewedText } from './overlays/viewer.ts';

/** Cells of a register's name, at least. */
const LEAST_NAME = 7;

/** What one vCPU does: where it is, its registers, its exits. */
export async function vcpuText(vm: Vm, index: number): Promise<string> {
  const cpu = vm.cpus[index];
  const report = await cpu.report();
  const where = await cpu.where().catch(() => report.registers?.rip ?? '');
  const reasons = Object.entries(report.exits).toSorted(([, a], [, b]) => b - a);
  const width = Math.max(LEAST_NAME, ...Object.keys(report.registers ?? {}).map((name) => name.length));
  const registers = Object.entries(report.registers ?? {}).map(([name, value]) => `${name.padStart(width)} ${value}`);
  const rows = Array.from({ length: Math.ceil(registers.length / 2) }, (_, row) =>
    registers
      .slice(row * 2, row * 2 + 2)
      .map((cell) => cell.padEnd(width + 23))
      .join(''),
  );
  return [
    `${report.activity ?? report.state} at ${where}`,
    `APIC ID ${report.apicId}, thread ${report.threadId}, ${(report.cpuTime / 1e9).toFixed(2)} s of processor time`,
    '',
    ...rows,
    '',
    `exits: ${reasons.reduce((sum, [, count]) => sum + count, 0)}, of which ${report.forwarded} went to the machine thread; ${report.kicks} kicks`,
    ...reasons.map(([name, count]) => `${String(count).padStart(12)} ${name}`),
    ...Object.entries(report.local).map(
      ([name, count]) => `${String(count).padStart(12)} ${name}, served by the vCPU's thread`,
    ),
  ].join('\n');
}

/**
 * A device: virtio features and queues; of a PCI function its configuration space decoded, BARs, MSI-X entries; of one
 * in memory where it is.
 */
export async function deviceText(vm: Vm, name: string): Promise<ViewedText> {
  const { pci, mmio } = await vm.machine.devices();
  const inMemory = mmio.find((each) => each.name === name);
  if (inMemory) {
    const { base, gsi } = inMemory;
    const head = `0x${base.toString(16)} ${name}: virtio ${typeName(inMemory)}, ${statusOf(inMemory)}`;
    return [head, `interrupt: pin ${gsi} of the I/O APIC`, ...virtioLines(inMemory)].join('\n');
  }
  const report = pci.find((each) => each.name === name);
  if (!report) return `${name} is not in the machine any more.`;
  const device = await vm.pci(name);
  return (width) => {
    const [head, ...rest] = device.decode(width).text.split('\n');
    return [head, ...(report.virtio ? virtioLines(report.virtio) : []), ...rest].join('\n');
  };
}

const virtioLines = ({ offered, negotiated, packed, queues }: VirtioReport): string[] => [
  `features: offered ${offered}, negotiated ${negotiated}${packed ? ', packed rings' : ''}`,
  ...queues.map(
    ({ index, enabled, size, available, used, inFlight, descriptors }) =>
      `queue ${index}: ${enabled ? `${size} entries at 0x${descriptors.toString(16)}, available ${available}, used ${used}, ${inFlight} in flight` : 'off'}`,
  ),
];
