import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import type { HostForward, MachineDescription, NetDescription } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import { type LiveRequest, type PlugInput, parsePlug } from '../client/live.ts';
import { type DiskChangeInput, parseDiskChange } from '../client/live_change.ts';
import type { CountersReport, DiskReport, MachineClient } from '../client/machine_client.ts';
import { EngineConnection } from '../client/remote.ts';
import { type Lab, startLab } from '../lab/lab.ts';
import { Machine } from '../vmm/machine.ts';
import type { MachineOptions } from '../vmm/machine_options.ts';
import { PostMortem } from '../vmm/post_mortem.ts';
import { ThreadPool } from '../vmm/threads.ts';
import { atAnyAddress, LabPorts } from './lab_ports.ts';
import { LabTaps } from './lab_taps.ts';
import { labAgentPath } from './paths.ts';
import { hostVerdict } from './probe.ts';

export type PlaceChoice = 'auto' | 'kvm' | 'lab';

/** Where machines run: under this host's KVM in this process, or in the lab. */
export interface Place {
  readonly kind: 'kvm' | 'lab';
  /** Why the lab was taken, when that was not asked for. */
  readonly reason: string | undefined;
  create(description: MachineDescription, options?: MachineOptions): Promise<MachineClient>;
  /** Milliseconds of silence after which a user of this place wonders. */
  readonly patience: number;
  readonly lab: Lab | undefined;
  /** Takes what a remote machine's console prints into this process's post-mortem; the engine does so itself. */
  readonly recordConsole: ((bytes: Uint8Array) => void) | undefined;
  /** The same for its counters. */
  readonly recordCounters: ((counters: CountersReport) => void) | undefined;
  close(): Promise<void>;
}

export interface PlaceOptions {
  /** Told of the lab's making, which may take a while. */
  readonly progress?: { report: (text: string, done: number, total: number) => void; done: () => void };
  /** Number of vCPUs whose threads are started while the rest is got ready. */
  readonly vcpus?: number;
}

/**
 * Opens a place to run machines.
 * @throws NemuError when `kvm` was asked for and cannot serve, or the lab does not start.
 */
export async function openPlace(choice: PlaceChoice, options: PlaceOptions = {}): Promise<Place> {
  let reason: string | undefined;
  if (choice === 'auto') {
    const verdict = await hostVerdict();
    if (!verdict.stockKernels) reason = verdict.reason;
  }
  if (choice === 'kvm' || (choice === 'auto' && reason === undefined)) return openHost(options.vcpus ?? 1);
  return openLab(reason, options);
}

function openHost(vcpus: number): Place {
  const pool = new ThreadPool();
  pool.prepare('machine', 1);
  pool.prepare('vcpu', vcpus);
  return {
    kind: 'kvm',
    reason: undefined,
    patience: 5000,
    lab: undefined,
    recordConsole: undefined,
    recordCounters: undefined,
    create: (description, machineOptions) => Machine.create(description, { pool, ...machineOptions }),
    close: () => pool.close(),
  };
}

async function openLab(reason: string | undefined, options: PlaceOptions): Promise<Place> {
  const bundle = labAgentPath();
  const lab = await startLab({
    bundle,
    ...(options.progress && { onProgress: options.progress.report }),
  }).finally(() => options.progress?.done());
  try {
    await lab.startEngine();
  } catch (error) {
    await lab.close();
    throw error;
  }
  let postMortem: PostMortem | undefined;
  const describeLoss = () => {
    const tail = lab.consoleTail().trim();
    const error = new NemuError('CONNECTION', `The lab ended.${tail ? ` Its last lines:\n${tail}` : ''}`);
    postMortem?.setError(error.message);
    return error;
  };
  const connection = new EngineConnection(lab.port, describeLoss, hostPaths);
  return {
    kind: 'lab',
    reason,
    patience: 20_000,
    lab,
    recordConsole: (bytes) => postMortem?.appendConsole(bytes),
    recordCounters: (counters) => postMortem?.setCounters(counters),
    create: async (description, machineOptions) => {
      postMortem = machineOptions?.postMortem ? PostMortem.create(machineOptions.postMortem) : undefined;
      postMortem?.setDescription(description);
      if (writesFiles(description)) await mountWritable(lab);
      const blocks = description.devices.filter((device) => device.type === 'virtio-mem');
      let shortage: NemuError | undefined;
      for (const each of [description.memory, ...description.dimms, ...blocks]) {
        shortage ??= await reserveHugePages(lab, each);
      }
      const ports = new LabPorts(lab);
      for (const { hostForwards } of description.nets) for (const each of hostForwards) await ports.open(each);
      const taps = new LabTaps(lab);
      const nets: NetDescription[] = [];
      for (const net of description.nets)
        nets.push(net.type === 'tap' ? { ...net, ifname: await taps.open(net) } : net);
      const made = connection.create(inLab({ ...description, nets }), {
        description: { ...description, nets },
        plug: (device, engine) => plugInLab(lab, ports, taps, device, engine),
        changeDisk: async (disk, change, engine) => engine(await diskChangeInLab(lab, disk, change)),
        changeNet: (net, change, engine) =>
          ports.changeNet(net, change, (onPorts) => taps.changeNet(net, onPorts, engine)),
        disk: (report) => ({ ...report, file: hostPaths(report.file) }),
        net: (report) => ports.told(report),
      });
      const machine = await instead(shortage, 'MEMORY_HUGEPAGES', made);
      machine.onEvent((event) => {
        if (event.type !== 'request') return;
        // Whoever plugged hears of a failure; a lab that has ended has taken its ports and cards with it.
        ports.settled(event.request).catch(() => {});
        taps.settled(event.request).catch(() => {});
      });
      for (const { ifname } of nets) if (ifname !== undefined) await taps.connect(ifname);
      return machine;
    },
    close: async () => {
      connection.close();
      await lab.close();
    },
  };
}

const writesFiles = ({ disks, nvdimms, devices }: MachineDescription): boolean =>
  disks.some(({ readonly }) => !readonly) ||
  nvdimms.some(({ readonly, share }) => share && !readonly) ||
  devices.some((device) => device.type === 'virtio-pmem' && device.share);

/**
 * Disks and NVDIMMs are the only files of the host that the lab writes: it sees them at /hostrw, once there is one.
 * Nothing is kept in its page cache but what is mapped.
 */
async function mountWritable(lab: Lab): Promise<void> {
  const options = 'trans=virtio,version=9p2000.L,msize=512000,cache=mmap';
  const { status, stderr } = await lab.exec(
    `grep -q " /hostrw " /proc/mounts || { mkdir -p /hostrw && mount -t 9p -o ${options} hostrw /hostrw; }`,
  );
  if (status !== 0) {
    throw new NemuError('LAB_DISKS', `The lab cannot mount this host's files for disks: ${stderr.toString().trim()}`);
  }
}

/**
 * The lab is the machine's own host: what huge pages the guest asks for are made there, where its memory allows.
 * @returns what it lacks, once everything else has been found right.
 */
async function reserveHugePages(
  lab: Lab,
  { hugepages, size }: Pick<MachineDescription['memory'], 'hugepages' | 'size'>,
): Promise<NemuError | undefined> {
  if (!hugepages) return undefined;
  const [bytes, needed] =
    hugepages === '1G' ? [2 ** 30, Math.ceil(size / 2 ** 30)] : [2 ** 21, Math.ceil(size / 2 ** 21)];
  const folder = `/sys/kernel/mm/hugepages/hugepages-${bytes / 1024}kB`;
  // The engine and the lab itself live in what is left.
  const spare = 512 * 2 ** 20;
  const script = [
    'available=$(sed -n "s/^MemAvailable: *\\([0-9]*\\) kB/\\1/p" /proc/meminfo)',
    `fits=$(( (available * 1024 - ${spare}) / ${bytes} ))`,
    `[ $fits -ge ${needed} ] || { echo $fits; exit; }`,
    `echo $(( $(cat ${folder}/nr_hugepages) + ${needed} )) >${folder}/nr_hugepages; cat ${folder}/free_hugepages`,
  ];
  const { stdout } = await lab.exec(script.join('\n'));
  const free = Math.max(0, Number(stdout.toString()));
  if (free >= needed) return undefined;
  return new NemuError(
    'LAB_HUGEPAGES',
    `The guest needs ${needed} huge pages of ${hugepages}; the lab's memory has room for ${free}.`,
    { hint: 'Ask for less with --memory, or run on a host with KVM: --on kvm.' },
  );
}

/** What was `asked`, or in place of an error with that code the one which says more. */
async function instead<T>(better: NemuError | undefined, code: string, asked: Promise<T>): Promise<T> {
  try {
    return await asked;
  } catch (error) {
    throw better && error instanceof NemuError && error.code === code ? better : error;
  }
}

/** What a device that is plugged needs of the lab, as a machine's own memory does. */
async function plugInLab(
  lab: Lab,
  ports: LabPorts,
  taps: LabTaps,
  input: PlugInput,
  engine: (device: PlugInput) => Promise<LiveRequest>,
): Promise<LiveRequest> {
  const device = parsePlug(input);
  if (device.kind === 'nvdimm') {
    const writes = device.share && !device.readonly;
    if (writes) await mountWritable(lab);
    return engine(nvdimmInLab(device));
  }
  if (device.kind === 'memory') {
    refuseFile(device.path);
    return instead(await reserveHugePages(lab, device), 'REFUSED', engine(input));
  }
  if (device.kind !== 'pci') return engine(input);
  if (device.type === 'virtio-blk') {
    if (!device.readonly) await mountWritable(lab);
    return engine(diskInLab(device));
  }
  if (device.type === 'virtio-mem') return instead(await reserveHugePages(lab, device), 'REFUSED', engine(input));
  if (device.type === 'virtio-pmem') {
    if (device.share) await mountWritable(lab);
    return engine(pmemInLab(device));
  }
  if (device.type === 'virtio-net') {
    return device.backend === 'tap'
      ? taps.aroundPlug(device, (ifname) => engine({ ...device, ifname }))
      : ports.aroundPlug(device.hostForwards, () => engine(netInLab(device)));
  }
  return engine(input);
}

/** A medium is a file of this host, as a disk's at the start. */
async function diskChangeInLab(
  lab: Lab,
  disk: DiskReport | undefined,
  input: DiskChangeInput,
): Promise<DiskChangeInput> {
  const change = parseDiskChange(input);
  if (change.action !== 'medium' || !disk) return input;
  if (!disk.readonly) await mountWritable(lab);
  return { ...change, file: labPath(change.file, disk.readonly ? '/host' : '/hostrw') };
}

function refuseFile(path: string | undefined): void {
  if (path === undefined) return;
  throw new NemuError(
    'LAB_READ_ONLY',
    `The lab sees this host's files read-only: memory path=${path} cannot be there.`,
    { hint: 'Use another memory backend, or --on kvm.' },
  );
}

/** The host's files are below /host in the lab; links are followed here, where they lead somewhere. */
function labPath(path: string, root = '/host'): string {
  try {
    return `${root}${realpathSync(resolve(path))}`;
  } catch {
    return `${root}${resolve(path)}`;
  }
}

/** A text of the lab in which files have the names that they have on this host. */
const hostPaths = (text: string) => text.replaceAll(/(?<![\w./-])\/host(rw)?(?=\/)/g, '');

const diskInLab = <T extends { readonly file: string; readonly readonly: boolean }>(disk: T): T => ({
  ...disk,
  file: labPath(disk.file, disk.readonly ? '/host' : '/hostrw'),
});

/** Connections reach the lab through its own network, where the guest's back end listens at any address. */
const netInLab = <T extends { readonly hostForwards: readonly HostForward[] }>(net: T): T => ({
  ...net,
  hostForwards: net.hostForwards.map(atAnyAddress),
});

const pmemInLab = <T extends { readonly file: string; readonly share: boolean }>(device: T): T => ({
  ...device,
  file: labPath(device.file, device.share ? '/hostrw' : '/host'),
});

const nvdimmInLab = <T extends { readonly file: string; readonly share: boolean; readonly readonly: boolean }>(
  nvdimm: T,
): T => ({ ...nvdimm, file: labPath(nvdimm.file, nvdimm.share && !nvdimm.readonly ? '/hostrw' : '/host') });

function inLab(description: MachineDescription): MachineDescription {
  const { kernel, memory, dimms, fwCfg } = description;
  for (const { path } of [memory, ...dimms]) refuseFile(path);
  return {
    ...description,
    // The emulated processor does not intercept XSETBV: KVM never learns of a guest's XCR0 and puts its own
    // back, so that a guest that uses AVX would die of it.
    cpus: { ...description.cpus, without: [...new Set([...description.cpus.without, 'xsave' as const])] },
    disks: description.disks.map(diskInLab),
    nvdimms: description.nvdimms.map(nvdimmInLab),
    devices: description.devices.map((device) => (device.type === 'virtio-pmem' ? pmemInLab(device) : device)),
    nets: description.nets.map(netInLab),
    kernel: { ...kernel, image: labPath(kernel.image), initrd: kernel.initrd.map((path) => labPath(path)) },
    fwCfg: fwCfg.map((item) => (item.file ? { ...item, file: labPath(item.file) } : item)),
  };
}
