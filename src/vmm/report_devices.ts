import type { DevicesReport, PciFunctionReport, VirtioReport } from '../client/machine_client.ts';
import { CONFIG_SPACE_SIZE } from '../devices/pci/config_space.ts';
import { VIRTIO_F_RING_PACKED } from '../devices/virtio/device.ts';
import { VirtioPci } from '../devices/virtio/pci.ts';
import type { VirtioState } from '../devices/virtio/transport.ts';
import type { PciRoot } from './pci/root.ts';

/** Every function below a root, for people. */
export function reportPci(root: PciRoot): DevicesReport['pci'] {
  return [...root.walk()].map(({ function: each, bus, devfn, on }): PciFunctionReport => {
    const config = Buffer.alloc(CONFIG_SPACE_SIZE);
    for (let at = 0; at < config.length; at += 4) config.writeUInt32LE(each.config.read(at, 4) >>> 0, at);
    return {
      name: each.name,
      address: `${hex2(bus)}:${hex2(devfn >> 3)}.${devfn & 7}`,
      ...(on.bridge && { bridge: on.bridge.name }),
      config: config.toString('base64'),
      bars: each.bars.map((bar) => {
        const base = each.barAddress(bar);
        return { index: bar.index, kind: bar.kind, size: bar.size, ...(base !== undefined && { base }) };
      }),
      ...(each instanceof VirtioPci && {
        msix: Array.from({ length: each.msix.vectors }, (_, vector) => ({ vector, ...each.msix.entry(vector) })),
        virtio: reportVirtio(each.state),
      }),
    };
  });
}

export function reportVirtio({ device, status, offered, driverFeatures, queues }: VirtioState): VirtioReport {
  return {
    name: device.name,
    type: device.type,
    status,
    offered: offered.toString(16),
    negotiated: driverFeatures.toString(16),
    packed: (driverFeatures & VIRTIO_F_RING_PACKED) !== 0n,
    queues: queues.map(({ size, enabled, descriptors, driver, device: used, queue }, index) => ({
      index,
      size,
      enabled,
      descriptors,
      driver,
      device: used,
      ...queue?.position,
      inFlight: queue?.inFlight ?? 0,
    })),
  };
}

const hex2 = (value: number) => value.toString(16).padStart(2, '0');
