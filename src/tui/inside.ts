/** What stands inside of what is chosen in a pane, as text. */
import type { Vm } from '../repl/vm.ts';

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

/** A PCI function: virtio features and queues, its configuration space decoded, BARs, MSI-X entries. */
export async function functionText(vm: Vm, name: string): Promise<string> {
  const report = (await vm.machine.devices()).pci.find((each) => each.name === name);
  if (!report) return `${name} is not in the machine any more.`;
  const { text } = (await vm.pci(name)).decode();
  const queues = report.virtio?.queues.map(
    ({ index, enabled, size, available, used, inFlight, descriptors }) =>
      `queue ${index}: ${enabled ? `${size} entries at 0x${descriptors.toString(16)}, available ${available}, used ${used}, ${inFlight} in flight` : 'off'}`,
  );
  const features = report.virtio
    ? [
        `features: offered ${report.virtio.offered}, negotiated ${report.virtio.negotiated}${report.virtio.packed ? ', packed rings' : ''}`,
      ]
    : [];
  const [head, ...rest] = text.split('\n');
  return [head, ...features, ...(queues ?? []), ...rest].join('\n');
}
