/** Configuration spaces as a Linux guest leaves them, as far as the workstation shows them. */
import type { PciFunctionReport, QueueReport } from '../../src/client/machine_client.ts';

interface Function {
  readonly name: string;
  readonly address: string;
  readonly bridge?: string;
  readonly vendor: number;
  readonly device: number;
  /** 0xBBSSPP. */
  readonly classCode: number;
  readonly header?: 0 | 1;
  /** A port with a slot: its number, and whether something is in it. */
  readonly slot?: { readonly number: number; readonly occupied: boolean };
  readonly bars?: PciFunctionReport['bars'];
  readonly vectors?: number;
  readonly virtio?: { readonly type: number; readonly status: number; readonly queues: number };
}

/** Fields of PCI 3.0 section 6.1, PCI Express 4.0 section 7.5.3 and MSI-X, PCI 3.0 section 6.8.2. */
function configOf({ vendor, device, classCode, header = 0, slot, vectors }: Function): string {
  const bytes = Buffer.alloc(4096);
  bytes.writeUInt16LE(vendor, 0);
  bytes.writeUInt16LE(device, 2);
  bytes.writeUInt16LE(0x0407, 4);
  bytes.writeUInt32LE((classCode << 8) | 1, 8);
  bytes[0x0e] = header;
  let last = 0x34;
  const add = (at: number, id: number) => {
    bytes[6] |= 0x10;
    bytes[last] = at;
    bytes[at] = id;
    last = at + 1;
  };
  if (slot) {
    add(0x54, 0x10);
    bytes.writeUInt16LE(0x0142, 0x56);
    bytes.writeUInt16LE(slot.occupied ? 0x2011 : 0x0011, 0x54 + 0x12);
    bytes.writeUInt32LE((slot.number << 19) | 0x7b, 0x54 + 0x14);
    bytes.writeUInt16LE(slot.occupied ? 0x0100 : 0x0700, 0x54 + 0x18);
    bytes.writeUInt16LE(slot.occupied ? 0x40 : 0, 0x54 + 0x1a);
  }
  if (vectors !== undefined) {
    add(0x98, 0x11);
    bytes.writeUInt16LE(0x8000 | (vectors - 1), 0x9a);
  }
  return bytes.toString('base64');
}

const queueOf = (index: number): QueueReport => ({
  ...{ index, size: 256, enabled: true, inFlight: index === 0 ? 3 : 0, available: 4711 + index, used: 4708 + index },
  ...{
    descriptors: 0x1234000 + index * 0x3000,
    driver: 0x1235000 + index * 0x3000,
    device: 0x1236000 + index * 0x3000,
  },
});

function functionOf(each: Function): PciFunctionReport {
  const { name, address, bridge, bars = [], vectors, virtio } = each;
  return {
    ...{ name, address, bars, config: configOf(each), ...(bridge !== undefined && { bridge }) },
    ...(vectors !== undefined && {
      msix: Array.from({ length: vectors }, (_, vector) => ({
        ...{ vector, address: vector < vectors - 1 ? 0xfee01000 : 0, data: 0x22 + vector },
        ...{ masked: vector === vectors - 1, pending: false },
      })),
    }),
    ...(virtio && {
      virtio: {
        ...{ name, type: virtio.type, status: virtio.status, packed: false },
        ...{ offered: '0000000130006e54', negotiated: '0000000110006a54' },
        queues: Array.from({ length: virtio.queues }, (_, index) => queueOf(index)),
      },
    }),
  };
}

const window64 = (index: number, at: number) => ({ index, kind: 'memory64', size: 0x4000, base: at }) as const;
const modern = (type: number, vendor = 0x1af4) => ({ vendor, device: 0x1040 + type });
const READY = 15;

/** A q35 with two root ports, one of them taken, a switch behind the other, and devices that are ready or are not. */
export const pciFunctions: readonly PciFunctionReport[] = (
  [
    { name: 'mch', address: '00:00.0', vendor: 0x8086, device: 0x29c0, classCode: 0x060000 },
    {
      ...{ name: 'vda', address: '00:01.0', ...modern(2), classCode: 0x010000, bars: [window64(4, 0x70_0000_0000)] },
      ...{ vectors: 3, virtio: { type: 2, status: READY, queues: 2 } },
    },
    {
      ...{ name: 'balloon0', address: '00:02.0', ...modern(5), classCode: 0x00ff00, vectors: 2 },
      ...{ bars: [window64(4, 0x70_0000_4000)], virtio: { type: 5, status: 0, queues: 3 } },
    },
    {
      ...{ name: 'rp0', address: '00:1c.0', vendor: 0x1b36, device: 0x000c, classCode: 0x060400, header: 1 },
      ...{
        slot: { number: 1, occupied: true },
        bars: [{ index: 0, kind: 'memory32', size: 0x1000, base: 0xfe00_0000 }],
      },
    },
    {
      ...{ name: 'net0', address: '01:00.0', bridge: 'rp0', ...modern(1), classCode: 0x020000, vectors: 4 },
      ...{ bars: [window64(4, 0x70_0010_0000)], virtio: { type: 1, status: READY, queues: 3 } },
    },
    {
      ...{ name: 'rp1', address: '00:1c.1', vendor: 0x1b36, device: 0x000c, classCode: 0x060400, header: 1 },
      slot: { number: 2, occupied: true },
    },
    {
      ...{ name: 'sw0', address: '02:00.0', bridge: 'rp1', vendor: 0x104c, device: 0x8232, classCode: 0x060400 },
      header: 1,
    },
    {
      ...{ name: 'sw0.0', address: '03:00.0', bridge: 'sw0', vendor: 0x104c, device: 0x8233, classCode: 0x060400 },
      ...{ header: 1, slot: { number: 3, occupied: true } },
    },
    {
      ...{ name: 'rng0', address: '04:00.0', bridge: 'sw0.0', ...modern(4), classCode: 0x00ff00, vectors: 2 },
      ...{ bars: [window64(4, 0x70_0020_0000)], virtio: { type: 4, status: 0x83, queues: 1 } },
    },
    {
      ...{ name: 'sw0.1', address: '03:01.0', bridge: 'sw0', vendor: 0x104c, device: 0x8233, classCode: 0x060400 },
      ...{ header: 1, slot: { number: 4, occupied: false } },
    },
    { name: 'lpc', address: '00:1f.0', vendor: 0x8086, device: 0x2918, classCode: 0x060100 },
  ] satisfies Function[]
).map(functionOf);
