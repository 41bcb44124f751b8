import { createHash } from 'node:crypto';
import { access, readdir, readFile, realpath, stat, truncate, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { NemuError } from '../client/errors.ts';
import { cacheRoot, dropUnused, publishFolder, touch } from './cache.ts';
import { commandOutput } from './command.ts';
import { fetchGuest, findGuest, type Guest } from './guest.ts';
import { findQemu, type LabMachine, LabQemu, machineIdentity, restoreState, saveState } from './lab_qemu.ts';
import { buildLabRoot, labRootIdentity } from './lab_root.ts';
import { LoaderClient } from './loader_client.ts';
import { rehearsalFiles } from './rehearsal.ts';

/** Raise it when QEMU's arguments or what is saved changes. */
const FORMAT = 1;

/** Images of other keys that are kept; each is some hundred megabytes. */
const IMAGES_KEPT = 4;

/** Told where the making of a lab is: words for people, and how much of that is done (steps, or bytes). */
export type LabProgress = (text: string, done: number, total: number) => void;

export interface LabImageOptions extends Partial<LabMachine> {
  /** Main module of an engine bundle that is loaded, and whose `prepare` is run, before the image is saved. */
  bundle?: string;
  onProgress?: LabProgress;
}

/** A lab that was saved when it was ready; `startLab` restores it. */
export interface LabImage {
  folder: string;
  memoryFile: string;
  stateFile: string;
  machine: LabMachine;
}

/**
 * What a lab cannot be restored without: the same machine.
 *
 * It has one processor. QEMU 7.2 translates a page of code while another of its processors may be writing there, and
 * keeps what it read before the write. A kernel that patches itself while several of its processors run (jump labels,
 * static calls) then meets a breakpoint that is no longer there: of guests with eight vCPUs, and of labs that run
 * them, one in four died of it or hung. With one emulated processor nothing translates and writes at the same time.
 */
export const DEFAULT_MACHINE: LabMachine = { memory: 4096, cpus: 1, devices: [] };

const STEPS = {
  initramfs: 'Packing the lab',
  boot: 'Booting the lab once, to save it',
  prepare: 'Loading the engine into the lab',
  rehearse: 'Running a guest in the lab once',
  save: 'Saving the lab',
} as const;

type Step = keyof typeof STEPS;

const BOOT_APPEND = 'console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable';
const BOOT_TIMEOUT_MS = 120_000;

/**
 * The saved lab for these options, made first when there is none. It is kept by all that goes into it: kernel,
 * Node, koffi, QEMU, init, machine and bundle. With a bundle the lab without one is made too, since the
 * bundle is then loaded into a restored copy of it, which takes a second instead of a boot.
 * @throws NemuError LAB_BOOT, LAB_ENDED, LAB_SAVE, LAB_PROGRAM, LAB_REQUEST
 */
export async function buildLabImage(options: LabImageOptions = {}): Promise<LabImage> {
  const report = reporter(options.onProgress);
  const machine = machineOf(options);
  const guest = await labKernel(options.onProgress);
  const identity = [FORMAT, machineIdentity(machine), await qemuIdentity(), await labRootIdentity(guest)];
  const base = await publishImage(identity, machine, async (image) => {
    const initrd = await ensureLabRoot(guest, report);
    report('boot');
    const boot = { kernel: guest.kernel, initrd, append: BOOT_APPEND };
    const qemu = new LabQemu(machine, { memoryFile: image.memoryFile, share: true, boot });
    await saving(qemu, image, report, async (loader) => {
      await qemu.qmp.start();
      await qemu.qmp.command('cont');
      await withTimeout(loader.greeted, qemu);
    });
  });
  if (options.bundle === undefined) return base;
  const modules = await bundleModules(options.bundle);
  const digest = createHash('sha256');
  for (const [name, bytes] of modules) digest.update(`${name} ${bytes.length}\n`).update(bytes);
  return publishImage([identity, digest.digest('hex')], machine, async (image) => {
    report('prepare');
    await copySparse(base.memoryFile, image.memoryFile);
    const qemu = new LabQemu(machine, { memoryFile: image.memoryFile, share: true, stateFile: base.stateFile });
    await saving(qemu, image, report, async (loader) => {
      await restoreState(qemu);
      await loadBundle(loader, modules);
      report('rehearse');
      // Once in a while the guest dies of the emulation; a lab that has run none is half as fast.
      let outcome = await rehearse(loader, guest);
      if (outcome !== REHEARSED) outcome = await rehearse(loader, guest);
      await writeFile(join(image.folder, REHEARSAL), `${outcome}\n`);
    });
  });
}

/** Boots a lab without saving it, for hardware whose state QEMU cannot save. */
export async function bootLab(
  options: LabImageOptions,
  memoryFile: string,
): Promise<{ qemu: LabQemu; loader: LoaderClient }> {
  const machine = machineOf(options);
  const report = reporter(options.onProgress);
  const guest = await labKernel(options.onProgress);
  const initrd = await ensureLabRoot(guest, report);
  report('boot');
  await writeFile(memoryFile, '');
  await truncate(memoryFile, machine.memory * 2 ** 20);
  const boot = { kernel: guest.kernel, initrd, append: BOOT_APPEND };
  const qemu = new LabQemu(machine, { memoryFile, share: true, boot });
  const loader = new LoaderClient(qemu.loader);
  qemu.ended.then((error) => loader.fail(error));
  try {
    await qemu.orEnd(qemu.qmp.start());
    await qemu.orEnd(qemu.qmp.command('cont'));
    await withTimeout(loader.greeted, qemu);
    return { qemu, loader };
  } catch (error) {
    await qemu.kill();
    throw error;
  }
}

/** Where the modules of a bundle lie in a lab: there they find koffi. */
export const BUNDLE_FOLDER = '/nemu';

/** Files of a bundle: its main module, and the others beside that, which its threads load. */
export async function bundleFiles(main: string): Promise<string[]> {
  const path = await realpath(main);
  const beside = (await readdir(dirname(path))).filter((name) => name.endsWith('.mjs') && name !== basename(path));
  return [path, ...beside.sort().map((name) => join(dirname(path), name))];
}

async function bundleModules(main: string): Promise<[name: string, bytes: Buffer][]> {
  const files = await bundleFiles(main);
  return Promise.all(files.map(async (path): Promise<[string, Buffer]> => [basename(path), await readFile(path)]));
}

/** Sends a bundle into a lab and imports it there. The host is not mounted before a lab is saved. */
async function loadBundle(loader: LoaderClient, modules: readonly [name: string, bytes: Buffer][]): Promise<void> {
  for (const [name, bytes] of modules) await putFile(loader, `${BUNDLE_FOLDER}/${name}`, bytes, 0o644);
  await loader.call('load', { path: `${BUNDLE_FOLDER}/${modules[0]![0]}` }).result;
}

/** In an image's folder: what came of the guest that the engine ran in it. */
export const REHEARSAL = 'rehearsal';
const REHEARSED = 'done';

/**
 * Has the engine run a guest in the lab. A lab in which that does not succeed is slower, and does as well.
 * @returns what came of it.
 */
async function rehearse(loader: LoaderClient, guest: Guest): Promise<string> {
  const folder = `${BUNDLE_FOLDER}/rehearsal`;
  const [kernel, initrd] = [`${folder}/kernel`, `${folder}/initrd`];
  const files = await rehearsalFiles(guest);
  const sleep = loader.keepAwake();
  try {
    await putFile(loader, kernel, files.kernel, 0o644);
    await putFile(loader, initrd, files.initrd, 0o644);
    await loader.call('rehearse', { kernel, initrd, folder }).result;
    return REHEARSED;
  } catch (error) {
    if (!(error instanceof NemuError && error.code === 'LAB_REQUEST')) throw error;
    return error.message;
  } finally {
    sleep();
    await loader.call('exec', { argv: ['rm', '-rf', folder] }).result;
  }
}

/** Writes a file in a lab; folders above it are made. */
export async function putFile(loader: LoaderClient, path: string, bytes: Uint8Array, mode: number): Promise<void> {
  const call = loader.call('put', { path, mode });
  call.write(bytes);
  call.end();
  await call.result;
}

function machineOf(options: LabImageOptions): LabMachine {
  const { memory = DEFAULT_MACHINE.memory, cpus = DEFAULT_MACHINE.cpus, devices = DEFAULT_MACHINE.devices } = options;
  if (!Number.isInteger(memory) || memory < 1024 || !Number.isInteger(cpus) || cpus < 1 || cpus > 255) {
    throw new NemuError('LAB_MACHINE', `A lab with ${memory} MiB of memory and ${cpus} processors cannot be made.`, {
      hint: 'It needs whole numbers: 1024 MiB or more, and 1 to 255 processors.',
    });
  }
  return { memory, cpus, devices };
}

function reporter(onProgress: LabProgress | undefined): (step: Step) => void {
  const steps = Object.keys(STEPS);
  return (step) => onProgress?.(STEPS[step], steps.indexOf(step), steps.length);
}

async function labKernel(onProgress: LabProgress | undefined): Promise<Guest> {
  try {
    return await findGuest('6.12-full');
  } catch {
    return fetchGuest({ flavour: 'full' }, ({ step, bytes, total }) => {
      if (step === 'download') onProgress?.("Fetching the lab's kernel", bytes, total);
    });
  }
}

async function qemuIdentity(): Promise<unknown[]> {
  const path = findQemu();
  const { size, mtimeMs } = await stat(path);
  return [path, size, mtimeMs];
}

async function ensureLabRoot(guest: Guest, report: (step: 'initramfs') => void): Promise<string> {
  const folder = join(cacheRoot(), 'initramfs');
  const path = join(folder, `lab-${keyOf(await labRootIdentity(guest))}.cpio`);
  if (await touch(path)) return path;
  report('initramfs');
  await dropUnused(folder, /^lab-/, 0);
  await buildLabRoot(guest, path);
  return path;
}

function keyOf(identity: unknown): string {
  return createHash('sha256').update(JSON.stringify(identity)).digest('hex').slice(0, 16);
}

async function publishImage(
  identity: unknown,
  machine: LabMachine,
  make: (image: LabImage) => Promise<void>,
): Promise<LabImage> {
  const parent = join(cacheRoot(), 'lab');
  const key = keyOf(identity);
  const at = (folder: string): LabImage => ({
    folder,
    memoryFile: join(folder, 'memory'),
    stateFile: join(folder, 'state'),
    machine,
  });
  const image = at(join(parent, key));
  if (!(await exists(image.stateFile))) {
    // A lab that runs from an image keeps its files open.
    await dropUnused(parent, /^[0-9a-f]{16}$/, IMAGES_KEPT);
    await publishFolder(image.folder, async (folder) => {
      const draft = at(folder);
      await writeFile(draft.memoryFile, '');
      await truncate(draft.memoryFile, machine.memory * 2 ** 20);
      await make(draft);
    });
  }
  await touch(image.folder);
  return image;
}

async function saving(
  qemu: LabQemu,
  image: LabImage,
  report: (step: 'save') => void,
  ready: (loader: LoaderClient) => Promise<void>,
): Promise<void> {
  try {
    const loader = new LoaderClient(qemu.loader);
    qemu.ended.then((error) => loader.fail(error));
    await qemu.orEnd(ready(loader));
    report('save');
    await saveState(qemu, image.stateFile);
  } finally {
    await qemu.kill();
  }
}

async function withTimeout(promise: Promise<void>, qemu: LabQemu): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      const words = qemu.consoleTail().trim().split('\n').slice(-12).join('\n');
      const text = `The lab was not ready within ${BOOT_TIMEOUT_MS / 1000} seconds. Its console:\n${words}`;
      reject(new NemuError('LAB_BOOT', text, { hint: 'Is this machine very busy? Try again when it is not.' }));
    }, BOOT_TIMEOUT_MS);
  });
  try {
    await qemu.orEnd(Promise.race([promise, timeout]));
  } finally {
    clearTimeout(timer);
  }
}

/** Node copies holes as zeros, four gigabytes of them; cp does not. */
async function copySparse(from: string, to: string): Promise<void> {
  await commandOutput('cp', ['--reflink=auto', '--sparse=always', '--', from, to]);
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
