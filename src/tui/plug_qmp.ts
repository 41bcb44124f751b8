/** The lines of QMP that plug what `vm.plug` does. */
import type { MachineDescription } from '../client/description.ts';
import type { PlugInput } from '../client/live.ts';
import { parseSize } from '../client/sizes.ts';

type Words = Readonly<Record<string, string | number | boolean | undefined>>;

const quoted = (value: string | number | boolean) => (/[\s'"]/.test(`${value}`) ? JSON.stringify(`${value}`) : value);
const qmpLine = (command: string, words: Words): string =>
  [
    command,
    ...Object.entries(words).flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${quoted(value)}`])),
  ].join(' ');
const deviceAdd = (driver: string, words: Words) => qmpLine('device_add', { driver, ...words });

/** Bytes, where a size that is being typed is one. */
function bytes(size: string | number | undefined): string | number | undefined {
  if (typeof size !== 'string') return size;
  try {
    return parseSize(size);
  } catch {
    return size;
  }
}

const BACKENDS = {
  ...{ anonymous: 'memory-backend-ram', memfd: 'memory-backend-memfd', file: 'memory-backend-file' },
} as const satisfies Record<string, string>;

/**
 * @param present numbers of the vCPUs that are there.
 * @returns one line a command; none for what QEMU's protocol has no device for.
 */
export function plugQmp(
  device: PlugInput,
  cpus: MachineDescription['cpus'],
  present: readonly number[],
): readonly string[] {
  if (device.kind === 'cpu') {
    const { cores, threads } = cpus;
    const free = Array.from({ length: present.length + 1 }, (_, index) => index).find(
      (each) => !present.includes(each),
    );
    const index = device.index ?? free ?? 0;
    const place = {
      'socket-id': Math.floor(index / (cores * threads)),
      'core-id': Math.floor(index / threads) % cores,
    };
    return [deviceAdd('host-x86_64-cpu', { ...place, 'thread-id': index % threads })];
  }
  if (device.kind === 'memory') {
    const { id, size, backend = 'anonymous', path, hostNodes, policy, share, prealloc, slot, node, address } = device;
    const made = {
      ...{ 'qom-type': BACKENDS[backend], id: `mem-${id ?? 'new'}`, size: bytes(size), 'mem-path': path },
      ...{ share, prealloc, policy: hostNodes && (policy ?? 'bind'), 'host-nodes': list(hostNodes) },
    };
    const placed = { id, memdev: made.id, slot, node, addr: address };
    return [qmpLine('object-add', made), deviceAdd('pc-dimm', placed)];
  }
  if (device.kind === 'nvdimm') {
    const { id, file, size, labelSize, readonly, share, slot, node } = device;
    const memdev = `mem-${id ?? 'new'}`;
    const all = Number(bytes(size) ?? 0) + Number(bytes(labelSize) ?? 0);
    return [
      qmpLine('object-add', {
        ...{ 'qom-type': BACKENDS.file, id: memdev, 'mem-path': file },
        ...{ size: all > 0 ? all : undefined, share: share ?? true },
      }),
      deviceAdd('nvdimm', { id, memdev, 'label-size': bytes(labelSize), unarmed: readonly, slot, node }),
    ];
  }
  return pciQmp(device);
}

const list = (numbers: readonly number[] | undefined) => (numbers ? JSON.stringify(numbers) : undefined);

function pciQmp(device: Extract<PlugInput, { kind: 'pci' }>): readonly string[] {
  const id = 'id' in device ? device.id : undefined;
  const place = { id, bus: device.port };
  switch (device.type) {
    case 'virtio-blk': {
      const drive = `node-${id ?? 'new'}`;
      const { file, format, readonly, cache, serial, queues, packed, werror, rerror } = device;
      return [
        qmpLine('blockdev-add', {
          ...{ driver: format ?? (/\.qcow2$/.test(file ?? '') ? 'qcow2' : 'raw'), 'node-name': drive },
          ...{ 'read-only': readonly, 'cache.direct': cache === 'none' ? true : undefined },
          ...{ 'file.driver': 'file', 'file.filename': file },
        }),
        deviceAdd('virtio-blk-pci', { ...place, drive, serial, 'num-queues': queues, packed, werror, rerror }),
      ];
    }
    case 'virtio-net': {
      const netdev = `netdev-${id ?? 'new'}`;
      const { backend = 'user', ifname, queues, net, hostname, restrict, hostForwards, mac, mtu, packed } = device;
      const forwards = hostForwards?.map(
        ({ protocol = 'tcp', hostAddress = '', hostPort, guestAddress = '', guestPort }) => ({
          str: `${protocol}:${hostAddress}:${hostPort}-${guestAddress}:${guestPort}`,
        }),
      );
      const made = { type: backend, id: netdev, ifname, queues, net, hostname, restrict };
      const words = Object.fromEntries(Object.entries(made).filter(([, value]) => value !== undefined));
      return [
        // Words have no form for a list of objects.
        forwards ? `netdev_add ${JSON.stringify({ ...words, hostfwd: forwards })}` : qmpLine('netdev_add', made),
        deviceAdd('virtio-net-pci', { ...place, netdev, mac, host_mtu: mtu, packed }),
      ];
    }
    case 'virtio-rng':
      return [deviceAdd('virtio-rng-pci', place)];
    case 'virtio-balloon': {
      const more = { 'deflate-on-oom': device.deflateOnOom, 'free-page-reporting': device.reporting };
      return [deviceAdd('virtio-balloon-pci', { ...place, ...more })];
    }
    case 'virtio-mem': {
      const memdev = `mem-${id ?? 'new'}`;
      const { size, backend = 'anonymous', hostNodes, policy, requested, block, node } = device;
      const bound = { policy: hostNodes && (policy ?? 'bind'), 'host-nodes': list(hostNodes) };
      return [
        qmpLine('object-add', { 'qom-type': BACKENDS[backend], id: memdev, size: bytes(size), ...bound }),
        deviceAdd('virtio-mem-pci', {
          ...{ ...place, memdev, node },
          ...{ 'requested-size': bytes(requested), 'block-size': bytes(block) },
        }),
      ];
    }
    case 'virtio-pmem': {
      const memdev = `mem-${id ?? 'new'}`;
      const { file, size, share } = device;
      return [
        qmpLine('object-add', {
          ...{ 'qom-type': BACKENDS.file, id: memdev, 'mem-path': file, size: bytes(size), share: share ?? true },
        }),
        deviceAdd('virtio-pmem-pci', { ...place, memdev }),
      ];
    }
    case 'i6300esb':
      return [deviceAdd('i6300esb', place)];
    default:
      return [];
  }
}
