/** A machine that does the same each time: what the workstation shows of it can be compared, and measured. */
import { parseMachine } from '../../src/client/description.ts';
import { NemuError } from '../../src/client/errors.ts';
import type { InterruptReport } from '../../src/client/interrupts.ts';
import type {
  CpuDevice,
  LiveDevice,
  LiveRequest,
  MemoryDevice,
  PluggedReport,
  PlugInput,
  Stage,
} from '../../src/client/live.ts';
import type { NetChangeInput } from '../../src/client/live_change.ts';
import type {
  BalloonReport,
  ConsoleStream,
  CountersReport,
  DirtyRateReport,
  DiskReport,
  EndState,
  MachineClient,
  MachineEvent,
  MachineState,
  MemoryRangeReport,
  NetReport,
  VcpuReport,
} from '../../src/client/machine_client.ts';
import type { VirtioMemReport } from '../../src/client/virtio_mem.ts';
import { interruptReport } from './interrupts.ts';
import { pciFunctions } from './scripted_pci.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;

/** Half of what is asked of it is there. */
const BLOCKS: VirtioMemReport = {
  ...{ kind: 'virtio-mem', id: 'vm0', address: 8 * GiB, size: GiB, node: 0, block: 2 * MiB },
  ...{ requested: 512 * MiB, plugged: 256 * MiB, usable: 640 * MiB, backend: 'anonymous', driver: true },
  requests: { plug: 3, unplug: 0, unplugAll: 1, state: 0, nack: 0, busy: 0, error: 0 },
  memslots: { used: 1, all: 8 },
};

/** What the guest prints: colours, bold, characters of two cells, one that is combined, and a line that is long. */
export const CONSOLE_TEXT = [
  '[    0.000000] Linux version 6.12.48 (debian-kernel@lists.debian.org)',
  '[    0.004182] ACPI: RSDP 0x00000000000F0000 000024 (v02 BOCHS )',
  '[    0.412000] pci 0000:00:1c.0: bridge window [mem 0xfe000000-0xfe1fffff] to [bus 01]',
  '\x1b[32m[  OK  ]\x1b[0m Started \x1b[1mdbus\x1b[0m.',
  '\x1b[38;5;208morange\x1b[0m \x1b[38;2;120;80;255mviolet\x1b[0m \x1b[7minverse\x1b[0m \x1b[41;97m red \x1b[0m',
  '漢字 かな 한글 | 🙂 | e\u0301 | naïve | 👍🏽 ❤\ufe0f 👨\u200d👩\u200d👧 |',
  `wide at the edge: ${'漢字'.repeat(30)}`,
  'root@guest:~# ',
].join('\r\n');

class ScriptedConsole implements ConsoleStream {
  readonly name: string;
  onLost: ((count: number) => void) | undefined;
  onWritable: (() => void) | undefined;
  /** What it was told of its terminal; Ctrl-t prints it. */
  size = 'none';
  #onData: ((bytes: Uint8Array) => void) | undefined;
  #first: string;

  constructor(name: string, first: string) {
    this.name = name;
    this.#first = first;
  }

  get onData() {
    return this.#onData;
  }

  set onData(listener: ((bytes: Uint8Array) => void) | undefined) {
    this.#onData = listener;
    if (this.#first !== '') listener?.(Buffer.from(this.#first));
    this.#first = '';
  }

  /** A terminal of a guest echoes. */
  write(bytes: Uint8Array): number {
    if (bytes.includes(0x14)) this.print(`\r\nsize ${this.size}\r\n`);
    else this.#onData?.(bytes);
    return bytes.length;
  }

  print(text: string): void {
    this.#onData?.(Buffer.from(text));
  }
}

const operation = (requests: number, bytes: number) => ({
  ...{ requests, bytes, failed: 0, totalUs: requests * 90 },
  latency: [requests, 0, 0],
});

const dimm = (id: string, slot: number, address: number, size: number): MemoryDevice =>
  ({ kind: 'memory', id, slot, address, size, node: 0, backend: 'memfd' }) as MemoryDevice;

const cpu = (index: number): CpuDevice => ({
  ...{ kind: 'cpu', id: `cpu${index}`, index, apicId: index, socket: 0, core: index, thread: 0 },
});

export interface ScriptedOptions {
  /** Its vCPUs work, in waves; else they do nothing. */
  readonly busy: boolean;
}

export class ScriptedMachine implements Pick<MachineClient, 'description' | 'state' | 'consoles'> {
  readonly description = parseMachine({
    ...{ name: 'work', kernel: { image: '/boot/vmlinuz' }, cpus: { count: 4, max: 8, pin: [[0], [1], [0], [1]] } },
    ...{ memory: { size: '1G', max: '8G', slots: 8 }, disks: [{ id: 'vda', file: '/images/debian.qcow2' }] },
  });
  state: MachineState = 'running';
  readonly end: EndState | undefined;
  readonly consoles = ['com1', 'hvc0'];
  readonly com1 = new ScriptedConsole('com1', CONSOLE_TEXT);
  readonly #hvc0 = new ScriptedConsole('hvc0', 'a second console\r\n');
  readonly #busy: boolean;
  readonly #listeners = new Set<(event: MachineEvent) => void>();
  readonly #cpus = [0, 1, 2, 3].map(cpu);
  readonly #dimms = [dimm('dimm0', 0, 4 * GiB, GiB), dimm('dimm1', 1, 5 * GiB, 512 * MiB)];
  readonly #cpuTime = [0, 0, 0, 0];
  readonly #exits = [0, 0, 0, 0];
  #second = 0;
  #requests = 0;
  #balloon = 256 * MiB;
  #link = true;
  #last: LiveRequest | undefined;

  constructor({ busy }: ScriptedOptions) {
    this.#busy = busy;
  }

  /** As much of it as the workstation asks for. */
  get client(): MachineClient {
    return this as unknown as MachineClient;
  }

  console(name: string): ConsoleStream {
    return name === 'com1' ? this.com1 : this.#hvc0;
  }

  onEvent(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  tell(event: MachineEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** What happened to it before anybody looked. */
  tellPast(): void {
    this.tell({ type: 'state', state: 'running' });
    this.tell({ type: 'phase', name: 'first instruction', ms: 212.4 });
    this.tell({ type: 'guest-fault', device: 'rng0', text: 'queue 0: descriptor 300 of 256 is none' });
    this.tell({ type: 'reset', cause: 'the guest' });
    this.tell({ type: 'panic', detail: 'VFS: Unable to mount root fs on unknown-block(0,0)' });
  }

  // --- reports: each call of `counters` is a second later ---------------------------------------------------

  async counters(): Promise<CountersReport> {
    this.#second++;
    for (const { index } of this.#cpus) {
      const load = this.#busy ? (1 + Math.sin(this.#second / 6 + index)) / 2 : 0.0002;
      this.#cpuTime[index] += load * 1e9;
      this.#exits[index] += Math.round(load * 12_000 * (index + 1));
    }
    const vcpus = this.#cpus.map(({ index }) => this.#vcpu(index));
    return {
      ...{ vcpus, regions: [], unclaimed: { reads: 0, writes: 0 }, coalesced: { writes: 0, drains: 0 }, wakeups: 0 },
      total: this.#exits.reduce((sum, count) => sum + count, 0),
      host: {
        ...{ memorySlots: 4, routes: 24, ioeventfds: 3, irqfds: 6, descriptors: 60, threads: 12, heap: 9 * MiB },
      },
    };
  }

  #vcpu(index: number): VcpuReport {
    const exits = this.#exits[index];
    return {
      ...{ index, apicId: index, threadId: 4200 + index, cpuTime: this.#cpuTime[index], state: 'running' as const },
      exits: { IO: Math.round(exits * 0.6), MMIO: Math.round(exits * 0.3), HLT: Math.round(exits * 0.1) },
      ...{ local: { 'com1 lsr': 1234 }, forwarded: 567, slept: 89, kicks: 7 },
    };
  }

  async inspect(): Promise<VcpuReport[]> {
    const names = ['rip', 'rflags', 'rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rsp', 'rbp', 'cr0', 'cr2', 'cr3', 'cr4'];
    return this.#cpus.map(({ index }) => ({
      ...this.#vcpu(index),
      activity: index === 0 ? 'running' : 'halted',
      registers: Object.fromEntries(
        names.map((name, at) => [name, `0x${(0xffffffff81000000n + BigInt(at * 0x1110 + index)).toString(16)}`]),
      ),
    }));
  }

  async disks(): Promise<DiskReport[]> {
    const bytes = this.#busy ? Math.round((1 + Math.sin(this.#second / 4)) * 40 * MiB) * this.#second : 0;
    return [
      {
        ...{
          name: 'vda',
          file: '/images/debian.qcow2',
          format: 'qcow2',
          probed: false,
          readonly: false,
          size: 8 * GiB,
        },
        ...{ throttle: {}, throttled: 0, latencyBoundsUs: [100, 1000] },
        operations: {
          ...{ read: operation(900, bytes), write: operation(300, bytes / 4), flush: operation(3, 0) },
          ...{ discard: operation(0, 0), writeZeroes: operation(0, 0) },
        },
      },
    ];
  }

  async nets(): Promise<NetReport[]> {
    const direction = (packets: number) => ({
      ...{ packets, bytes: packets * 1500, dropped: 0, errors: 0, throttled: false },
      ...{ waited: 0, totalWaitUs: 0, wait: [] },
    });
    const packets = this.#busy ? Math.round((1 + Math.sin(this.#second / 5)) * 2000) + 4000 * this.#second : 0;
    return [
      {
        ...{ name: 'net0', mac: '52:54:00:12:34:56', link: this.#link, type: 'user', queues: 1, hostForwards: [] },
        ...{ throttle: {}, waitBoundsUs: [], rx: direction(packets), tx: direction(Math.round(packets / 8)) },
      },
    ];
  }

  async changeNet(_name: string, change: NetChangeInput): Promise<NetReport> {
    if (change.action === 'link') this.#link = change.up;
    return (await this.nets())[0];
  }

  async devices() {
    return { pci: pciFunctions, mmio: [] };
  }

  async interrupts(): Promise<InterruptReport> {
    return interruptReport(this.#cpus.length);
  }

  async memoryMap(): Promise<MemoryRangeReport[]> {
    return [
      { address: 0, size: GiB, resident: (200 + 4 * Math.min(this.#second, 48)) * MiB, huge: 128 * MiB },
      { dimm: 'dimm0', address: 4 * GiB, size: GiB, resident: GiB, huge: 0 },
      { dimm: 'dimm1', address: 5 * GiB, size: 512 * MiB, resident: 0, huge: 0 },
      { dimm: 'nvdimm0', address: 6 * GiB, size: 2 * GiB, resident: 20 * MiB, huge: 0 },
      { dimm: BLOCKS.id, address: BLOCKS.address, size: BLOCKS.size, resident: BLOCKS.plugged, huge: 0 },
    ];
  }

  async dirtyRate(milliseconds: number): Promise<DirtyRateReport> {
    const ranges = (await this.memoryMap()).map(({ dimm, address, size }) => ({
      ...(dimm !== undefined && { dimm }),
      ...{ address, size, dirty: address === 0 ? 6 * MiB : 0 },
    }));
    return { milliseconds, ranges };
  }

  async balloon(target = this.#balloon): Promise<BalloonReport> {
    this.#balloon = target;
    return { target, actual: 128 * MiB, statistics: { availableMemory: 300 * MiB } };
  }

  async plugged(): Promise<PluggedReport> {
    const device = (id: string, type: 'virtio-net' | 'virtio-rng', port: string) =>
      ({ kind: 'pci', id, type, port, streams: [] }) as const;
    return {
      cpus: { present: this.#cpus, max: 8 },
      memory: { boot: GiB, dimms: this.#dimms, max: 8 * GiB, slots: 8, virtio: [BLOCKS] },
      nvdimms: [
        {
          ...{ kind: 'nvdimm', id: 'nvdimm0', slot: 2, address: 6 * GiB, size: 2 * GiB, node: 0, labelSize: 0 },
          ...{ file: '/images/pmem.img', readonly: false, share: true, flushes: 17 },
        },
      ],
      pci: {
        devices: [device('net0', 'virtio-net', 'rp0'), device('rng0', 'virtio-rng', 'sw0.0')],
        ports: [
          { id: 'rp0', kind: 'port', device: 'net0' },
          { id: 'sw0.0', kind: 'port', device: 'rng0' },
          { id: 'sw0.1', kind: 'port' },
        ],
      },
    };
  }

  // --- changes ----------------------------------------------------------------------------------------------

  async pause(): Promise<void> {
    this.#become('paused');
  }

  async resume(): Promise<void> {
    this.#become('running');
  }

  async reset(): Promise<void> {
    this.tell({ type: 'reset', cause: 'the user' });
  }

  async powerButton(): Promise<void> {}

  #become(state: MachineState): void {
    this.state = state;
    this.tell({ type: 'state', state });
  }

  /** A DIMM that the guest takes, but does not bring into use; a vCPU that it starts. */
  async plug(input: PlugInput): Promise<LiveRequest> {
    const cpus = this.#cpus.length;
    const slot = this.#dimms.length + 1;
    const device: LiveDevice = input.kind === 'cpu' ? cpu(cpus) : dimm(`dimm${slot}`, slot, 8 * GiB, 256 * MiB);
    return this.#request('plug', device, input.kind === 'cpu' ? 'online' : undefined);
  }

  async unplug(id: string): Promise<LiveRequest> {
    const device = [...this.#cpus, ...this.#dimms].find((each) => each.id === id) ?? cpu(0);
    const request = await this.#request('unplug', device, 'refused', 'the guest says that it is busy (_OST 0x82)');
    throw new NemuError('REFUSED', `${id} was not unplugged: ${request.reason}`, { hint: 'It can be tried again.' });
  }

  /** @param last the stage that it ends in; without one it never does. */
  async #request(action: 'plug' | 'unplug', device: LiveDevice, last?: Stage, reason?: string): Promise<LiveRequest> {
    const id = ++this.#requests;
    const history: { stage: Stage; at: string }[] = [];
    let request: LiveRequest | undefined;
    for (const stage of ['reserved', 'notified', 'accepted', last] as const) {
      if (stage === undefined) return new Promise(() => {});
      history.push({ stage, at: String(history.length * 1000) });
      const why = stage === 'refused' && reason !== undefined ? { reason } : {};
      request = { id, action, origin: 'user', device, stage, ...why, history: [...history] };
      this.#last = request;
      this.tell({ type: 'request', request });
    }
    return request as LiveRequest;
  }

  /** The last request comes to its end. */
  settle(stage: Stage): void {
    if (this.#last) this.tell({ type: 'request', request: { ...this.#last, stage } });
  }

  async requests(): Promise<LiveRequest[]> {
    return [];
  }

  async resizeConsole(name: string, rows: number, columns: number): Promise<boolean> {
    if (name === 'com1') this.com1.size = `${rows} ${columns}`;
    return true;
  }

  ended(): Promise<EndState> {
    return new Promise(() => {});
  }
}
