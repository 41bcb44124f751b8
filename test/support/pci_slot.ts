/** A PCI slot without a bus, for functions on their own. */
import type { Region } from '../../src/devices/device.ts';
import type { PciFunction, PciSlot } from '../../src/devices/pci/function.ts';
import { FakeLine, type FakeMemory } from './board.ts';

export class FakeSlot implements PciSlot {
  readonly memory: FakeMemory;
  readonly intx = new FakeLine();
  readonly messages: { address: number; data: number }[] = [];
  readonly msi = { send: (address: number, data: number) => void this.messages.push({ address, data }) };

  constructor(memory: FakeMemory) {
    this.memory = memory;
  }

  decodeChanged(): void {}

  /** What was put off, until a test does it. */
  readonly deferred: (() => void)[] = [];

  defer(action: () => void): void {
    this.deferred.push(action);
  }
}

/** Configuration space of a function, and what its BARs show, as regions. */
export function regionsOf(pci: PciFunction): Region[] {
  return [
    {
      name: `${pci.name} configuration`,
      size: 0x1000,
      // The root splits what crosses a double word.
      read: (offset, size) => ((offset & 3) + size > 4 ? 0 : pci.config.read(offset, size)),
      write: (offset, size, value) => void ((offset & 3) + size > 4 || pci.config.write(offset, size, value)),
    },
    ...pci.bars.map((bar) => bar.region),
  ];
}
