/** The machine that `nemu run` is asked for: its options, over a description in a file. */
import { existsSync, statSync } from 'node:fs';
import { isatty } from 'node:tty';
import { type Config, readConfig, withAbsolutePaths } from '../client/config.ts';
import {
  type ConfigInput,
  type MachineDescription,
  type MachineInput,
  parseMachine,
  withDevicesApart,
} from '../client/description.ts';
import { DEVICE_MODULES } from '../client/device_schema.ts';
import { NemuError } from '../client/errors.ts';
import { BULK_PORT } from '../client/guest_session.ts';
import {
  parseCpus,
  parseDimm,
  parseDisk,
  parseFwCfg,
  parseMemory,
  parseNet,
  parseNvdimm,
  parsePcie,
  parsePinning,
  parseSerial,
} from '../client/options.ts';
import type { GuestAddress } from '../lab/initramfs.ts';
import { findSlirp } from '../lab/lab_root.ts';
import { findRootImage } from '../lab/root_image.ts';
import { userNetAddresses } from '../net/user_net.ts';
import { asNemuError } from '../vmm/backend_error.ts';
import { guestBoot, recordedBoot } from './default_guest.ts';
import { parseDevice } from './device_options.ts';
import { parseNuma } from './numa_options.ts';
import type { RunOptions } from './run_options.ts';

/** Linux' drivers of NVDIMMs and of the block devices on them. */
const NVDIMM_MODULES = ['nfit', 'nd_pmem'];
/** What namespaces need that are to be mapped without a file system. */
const DAX_MODULES = ['dax_pmem', 'device_dax'];

type NetInput = NonNullable<MachineInput['nets']>[number];
type Devices = NonNullable<MachineInput['devices']>;
type SerialInput = NonNullable<MachineInput['serial']>;

/**
 * The machine that the options ask for. What an option says goes before the file of `--config`; disks, network
 * cards, fw_cfg files, initrds and the kernel's command line are added to the file's.
 * @param served others run commands in its guest: its agent gets a port for what these read and print.
 * @throws NemuError for what does not do, with the place in the file when it is there.
 */
export async function describe(
  kernel: string | undefined,
  command: readonly string[],
  options: RunOptions,
  served = false,
): Promise<MachineDescription> {
  const config = options.config === undefined ? undefined : await readConfig(options.config);
  const file = config?.input ?? {};
  const source = await kernelSource(kernel, command, options, file);
  // The user's own initrd knows nothing of our channels: it gets a console and no more.
  const ours = source.made && options.initrd.length === 0;
  const asked = [...(file.devices ?? []), ...options.device.map(parseDevice)];
  const hasCard = asked.some(({ type }) => type === 'virtio-net');
  const apart = withDevicesApart({
    disks: [...(file.disks ?? []), ...options.disk.map((text) => parseDisk(text))],
    nets: netInputs(options, file, ours && !source.isFile && !hasCard),
    devices: asked,
  });
  const { nets } = apart;
  const machine = options.machine ?? file.machine;
  const bulk = ours && (served || CONSOLES.some((type) => apart.devices.some((device) => device.type === type)));
  const devices = bulk ? withBulkPort(apart.devices, machine) : apart.devices;
  const root = options.root === undefined ? [] : [await rootDisk(options.root)];
  const disks = [...root, ...apart.disks];
  const nvdimms = [...(file.nvdimms ?? []), ...options.nvdimm.map(parseNvdimm)];
  const rng = options.rng ?? file.rng ?? false;
  const pcie = { ...file.pcie, ...(options.pcie !== undefined && parsePcie(options.pcie)) };
  const memory = { ...file.memory, ...(options.memory !== undefined && parseMemory(options.memory)) };
  const kernelInput = source.made
    ? await makeBoot(
        source,
        command,
        options,
        nets,
        memory.max !== undefined || devices.some(({ type }) => type === 'virtio-mem'),
        machine === 'minimal' ? 'virtio_mmio' : 'virtio_pci',
        [
          ...(disks.length > 0 ? ['virtio_blk'] : []),
          ...(root.length > 0 ? ['ext4'] : []),
          ...(nets.length > 0 ? ['virtio_net'] : []),
          ...(nvdimms.length > 0 ? NVDIMM_MODULES : []),
          ...(rng ? ['virtio_rng'] : []),
          ...new Set(devices.flatMap(({ type }) => DEVICE_MODULES[type] ?? [])),
        ],
        // What may come while it runs.
        [
          ...(machine === 'pc' || (machine !== 'minimal' && pcie.rootPorts !== 0)
            ? ['virtio_pci', ...new Set(Object.values(DEVICE_MODULES).flat())]
            : []),
          ...(nvdimms.length > 0 || memory.max !== undefined ? DAX_MODULES : []),
        ],
      )
    : source.kernel;
  return parseOver(config, options, {
    name: options.name ?? file.name ?? 'nemu',
    machine,
    cpus: cpusInput(options, file),
    memory,
    numa: options.numa.length > 0 ? parseNuma(options.numa) : file.numa,
    kernel: kernelInput,
    serial: serialInputs(options, file, ours, source.made, command.length > 0),
    pcie,
    rtc: options.rtc && (file.rtc ?? true),
    pvpanic: options.pvpanic && (file.pvpanic ?? true),
    debugExit: options.debugExit ?? file.debugExit ?? false,
    i8042: options.i8042 ?? file.i8042 ?? false,
    hpet: options.hpet ?? file.hpet ?? false,
    fwCfg: [...(file.fwCfg ?? []), ...options.fwCfg.map(parseFwCfg)],
    dimms: [...(file.dimms ?? []), ...options.dimm.map(parseDimm)],
    nvdimms,
    nvdimmPersistence: options.nvdimmPersistence ?? file.nvdimmPersistence,
    disks,
    nets,
    rng,
    devices,
    onReset: options.reboot && command.length === 0 ? file.onReset : 'stop',
    onTripleFault: file.onTripleFault,
    onPanic: file.onPanic,
  });
}

/** A mistake between fields that are in the file, as those of NUMA are, is told with its place. */
function parseOver(config: Config | undefined, options: RunOptions, input: MachineInput): MachineDescription {
  const numa = config?.input.numa !== undefined && options.numa.length === 0;
  return parseMachine(withAbsolutePaths(input), (path) =>
    numa && path[0] === 'numa' ? config.locate(path) : undefined,
  );
}

/** A kernel that is taken as it is described, or one that gets our initramfs. */
type KernelSource =
  | { readonly made: false; readonly isFile: true; readonly kernel: MachineInput['kernel'] }
  | {
      readonly made: true;
      readonly isFile: boolean;
      readonly selector: string | undefined;
      readonly append: string | undefined;
    };

async function kernelSource(
  kernel: string | undefined,
  command: readonly string[],
  options: RunOptions,
  file: ConfigInput,
): Promise<KernelSource> {
  const isFile = kernel !== undefined && (kernel.includes('/') || existsSync(kernel));
  if (isFile && !existsSync(kernel)) {
    throw new NemuError('KERNEL_FILE', `The kernel ${kernel} does not exist.`, {
      hint: 'Give a file, or a name from `nemu guest list`; without one the default guest is booted.',
    });
  }
  if (isFile && !statSync(kernel).isFile()) throw new NemuError('KERNEL_FILE', `The kernel ${kernel} is not a file.`);
  for (const initrd of options.initrd) {
    if (!existsSync(initrd)) throw new NemuError('INITRD_FILE', `The initrd ${initrd} does not exist.`);
  }
  const described = file.kernel ?? {};
  const append = (cmdline: string | undefined) => [cmdline, options.append].filter(Boolean).join(' ') || undefined;
  const image = isFile ? kernel : kernel === undefined ? described.image : undefined;
  // A name of ours and our initramfs go together: what the file has for another kernel is not for this one.
  if (described.initrd === undefined || image === undefined) {
    if (image !== undefined) return { made: true, isFile: true, selector: image, append: append(described.cmdline) };
    const own = described.initrd === undefined ? described.cmdline : undefined;
    return { made: true, isFile: false, selector: kernel, append: append(own) };
  }
  if (command.length > 0) {
    const recorded = await recordedBoot(described);
    if (!recorded) {
      throw new NemuError('USAGE', "A command needs NEMU's own initramfs, but the machine description has an initrd.", {
        hint: `Leave kernel.initrd out of ${options.config}, or the command.`,
      });
    }
    const selector = isFile ? kernel : recorded.kernel;
    return { made: true, isFile: isFile || recorded.isFile, selector, append: append(recorded.append) };
  }
  const initrd = [...described.initrd, ...options.initrd];
  return { made: false, isFile: true, kernel: { image, initrd, cmdline: append(described.cmdline) ?? '' } };
}

async function makeBoot(
  source: Extract<KernelSource, { made: true }>,
  command: readonly string[],
  options: RunOptions,
  nets: readonly NetInput[],
  dimms: boolean,
  transport: 'virtio_pci' | 'virtio_mmio',
  modules: readonly string[],
  available: readonly string[],
): Promise<MachineInput['kernel']> {
  const terminal = isatty(0) && isatty(1);
  const size = terminal ? { rows: process.stdout.rows, columns: process.stdout.columns } : undefined;
  const { name: _, ...kernel } = await guestBoot({
    kernel: source.selector,
    isFile: source.isFile,
    initrd: options.initrd,
    append: source.append,
    // Modules that the default guest's kernel needs for the machine's devices.
    modules: modules.length > 0 ? [transport, ...modules] : [],
    available,
    task: {
      ...(command.length > 0 && { command: command.length === 1 ? command[0] : command }),
      ...(size && { terminal: size }),
      env: { TERM: process.env.TERM && terminal ? process.env.TERM : 'linux' },
      network: nets.map(guestAddress),
      ...(options.root !== undefined && { root: '/dev/vda' }),
    },
    dimms,
    ...(dimms && { late: NVDIMM_MODULES }),
    // What describes the machine, now or later, names them; a command is this run's own.
    keep: options.dryRun === true || command.length === 0,
  });
  return kernel;
}

/** The disk that the guest's system is on: an image that was built, by its name, or a file. */
async function rootDisk(text: string) {
  const disk = parseDisk(text);
  return { ...disk, file: (await findRootImage(disk.file)) ?? disk.file };
}

/** Network cards that were asked for; the default guest has user networking where the host has its library. */
function netInputs(options: RunOptions, file: ConfigInput, isDefault: boolean): NetInput[] {
  if (options.net.includes('none')) return options.net.map((text) => parseNet(text)).filter((net) => net !== undefined);
  if (options.net.length === 0 && file.nets === undefined) {
    return isDefault && findSlirp() ? [{ type: 'user' as const }] : [];
  }
  return [...(file.nets ?? []), ...options.net.map((text) => parseNet(text)).filter((net) => net !== undefined)];
}

const CONSOLES = ['virtio-console', 'virtio-port'];

/** The agent's bulk goes over a port of a virtio console, which is on PCI. */
function withBulkPort(devices: Devices, machine: MachineInput['machine']): Devices {
  const has = devices.some((device) => device.type === 'virtio-port' && device.name === BULK_PORT);
  return has || machine === 'minimal' ? devices : [...devices, { type: 'virtio-port', name: BULK_PORT }];
}

/** @throws NemuError NET for a network that is none. */
function guestAddress(net: NetInput): GuestAddress | undefined {
  try {
    return net.type === 'user' ? userNetAddresses(net.net) : undefined;
  } catch (cause) {
    throw asNemuError('NET', cause);
  }
}

/** A topology is one whole: that of an option replaces the file's. */
function cpusInput(options: RunOptions, file: ConfigInput): MachineInput['cpus'] {
  const { without, pin } = file.cpus ?? {};
  const cpus =
    options.cpus === undefined
      ? file.cpus
      : { ...(without && { without }), ...(pin && { pin }), ...parseCpus(options.cpus) };
  return options.pin === undefined ? cpus : { ...cpus, pin: parsePinning(options.pin) };
}

function serialInputs(
  options: RunOptions,
  file: ConfigInput,
  ours: boolean,
  made: boolean,
  hasCommand: boolean,
): SerialInput {
  const serial: SerialInput = ours
    ? [
        'com1',
        ...(hasCommand ? (['com2', 'com3'] as const).map((port) => ({ port, flow: 'wait' as const })) : []),
        { port: 'com4', flow: 'wait' },
      ]
    : made || file.serial === undefined
      ? ['com1']
      : [];
  for (const extra of [...(file.serial ?? []), ...options.serial.map(parseSerial)]) {
    const port = typeof extra === 'string' ? extra : extra.port;
    const index = serial.findIndex((each) => (typeof each === 'string' ? each : each.port) === port);
    if (index >= 0) serial.splice(index, 1, extra);
    else serial.push(extra);
  }
  return serial;
}
