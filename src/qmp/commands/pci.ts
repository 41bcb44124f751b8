/** The PCI tree. */
import * as z from 'zod';
import { command } from '../command.ts';
import type { Monitor } from '../monitor.ts';
import { PciView } from '../pci_view.ts';
import { bool, int, none, str } from '../types.ts';

const range = z.strictObject({ base: int, limit: int });
const bus = z.strictObject({
  ...{ number: int, secondary: int, subordinate: int },
  ...{ io_range: range, memory_range: range, prefetchable_range: range },
});
const region = z.strictObject({
  ...{ bar: int, type: str, address: int, size: int, prefetch: bool.optional(), mem_type_64: bool.optional() },
});
const own = {
  ...{ bus: int, slot: int, function: int, class_info: z.strictObject({ desc: str.optional(), class: int }) },
  id: z.strictObject({ device: int, vendor: int, subsystem: int.optional(), 'subsystem-vendor': int.optional() }),
  ...{ irq: int.optional(), irq_pin: int, qdev_id: str, regions: z.array(region) },
};
type Device = z.output<z.ZodObject<typeof own>> & {
  pci_bridge?: { bus: z.output<typeof bus>; devices?: Device[] | undefined } | undefined;
};
const bridge = z.strictObject({
  bus,
  get devices(): z.ZodOptional<z.ZodArray<z.ZodType<Device, Device>>> {
    return z.array(device).optional();
  },
});
const device: z.ZodType<Device, Device> = z.strictObject({ ...own, pci_bridge: bridge.optional() });

/** What is soldered on has no id. */
export const isOnBoard = (view: PciView) => view.class >> 8 === 0x06 && !view.isBridge;

function deviceOf(monitor: Monitor, view: PciView, all: readonly PciView[]): Device {
  const desc = view.className;
  const behind = view.isBridge ? all.filter(({ report }) => report.bridge === view.report.name) : [];
  return {
    ...{ bus: view.bus, slot: view.slot, function: view.function, id: view.id },
    class_info: { class: view.class, ...(desc !== undefined && { desc }) },
    ...{ irq_pin: view.irqPin, ...(view.irqPin > 0 && { irq: view.irq }) },
    qdev_id: isOnBoard(view) ? '' : monitor.names.peer(view.report.name),
    ...(view.isBridge && {
      pci_bridge: {
        bus: view.bridge,
        ...(behind.length > 0 && { devices: behind.map((each) => deviceOf(monitor, each, all)) }),
      },
    }),
    regions: view.regions,
  };
}

export async function pciViews({ machine }: Monitor): Promise<PciView[]> {
  return (await machine.devices()).pci.map((report) => new PciView(report));
}

export async function queryPci(monitor: Monitor) {
  const all = await pciViews(monitor);
  const roots = all.filter(({ report }) => report.bridge === undefined);
  if (roots.length === 0) return [];
  return [{ bus: 0, devices: roots.map((each) => deviceOf(monitor, each, all)) }];
}

export const PCI = [
  command({
    name: 'query-pci',
    summary: 'PCI functions, bridges with what is behind them',
    args: none,
    returns: z.array(z.strictObject({ bus: int, devices: z.array(device) })),
    run: queryPci,
  }),
];
