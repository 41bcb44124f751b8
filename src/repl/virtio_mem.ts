/** Memory that the guest plugs and unplugs by blocks, as the REPL has it. */
import { inspect } from 'node:util';
import type { PlugOptions } from '../client/live.ts';
import { virtioMemNote } from '../client/notes.ts';
import { formatSize } from '../client/sizes.ts';
import type { VirtioMemReport } from '../client/virtio_mem.ts';
import { bytesOf, requireObject, requireText } from './arguments.ts';
import { Done } from './values.ts';
import type { Vm } from './vm.ts';

/** A virtio-mem device, with what was plugged of it when it was looked up. */
export class VirtioMem {
  readonly report: VirtioMemReport;
  readonly #vm: Vm;

  constructor(vm: Vm, report: VirtioMemReport) {
    this.#vm = vm;
    this.report = report;
  }

  get id(): string {
    return this.report.id;
  }

  /** Bytes that the guest has plugged. */
  get plugged(): number {
    return this.report.plugged;
  }

  /** Bytes that it is asked to have plugged. */
  get requested(): number {
    return this.report.requested;
  }

  /** Asks the guest to have so much of it plugged. @throws as `resizeMemory` does. */
  resize(size: string | number, options: PlugOptions = {}): Promise<Done> {
    return resizeMemory(this.#vm, this.id, size, options);
  }

  [inspect.custom](): string {
    const { id, plugged, requested, size, block, node } = this.report;
    const sizes = `${formatSize(plugged)} of ${formatSize(requested)} asked for, up to ${formatSize(size)}`;
    return `${id}: ${sizes}, in blocks of ${formatSize(block)}, node ${node}`;
  }
}

/**
 * Asks the guest to have so many bytes of a virtio-mem device plugged. Resolves when it is so. What takes it back asks
 * for what was asked for before.
 * @throws NemuError as `MachineClient.resizeMemory` does.
 */
export async function resizeMemory(
  vm: Vm,
  id: string,
  size: string | number,
  options: PlugOptions = {},
): Promise<Done> {
  requireText(id, "a virtio-mem device's id", "vm.memory.resize('vm0', '512M')");
  requireObject(options, "vm.memory.resize('vm0', '512M', { timeoutMs: 5000 })");
  const bytes = bytesOf(size);
  const { memory } = await vm.machine.plugged();
  const before = memory.virtio.find((each) => each.id === id)?.requested ?? 0;
  return vm.journal.do({
    ...virtioMemNote(id, { size, bytes }, before, options),
    run: async () => new Done(await vm.change((machine) => machine.resizeMemory(id, bytes, options))),
  });
}
