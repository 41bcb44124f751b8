import { mkdtemp, rm } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { Duplex } from 'node:stream';
import { NemuError } from '../client/errors.ts';
import {
  BUNDLE_FOLDER,
  bootLab,
  buildLabImage,
  bundleFiles,
  type LabImage,
  type LabImageOptions,
  putFile,
} from './lab_image.ts';
import { LAB_ADDRESS, LabQemu, restoreState } from './lab_qemu.ts';
import { LoaderClient } from './loader_client.ts';

export interface LabOptions extends LabImageOptions {
  /** False boots the lab instead of restoring a saved one: slower, for hardware that QEMU cannot save. */
  snapshot?: boolean;
}

export interface LabExecOptions {
  input?: Uint8Array;
  env?: Readonly<Record<string, string>>;
  cwd?: string;
  /** Run with the host's files as root (a writable layer above them), so that the host's programs work. */
  hostRoot?: boolean;
  /** Called as output comes; it is collected all the same. */
  onOutput?: (stream: 'stdout' | 'stderr', bytes: Buffer) => void;
}

export interface LabResult {
  /** Exit status; 128 and more after a signal. */
  status: number;
  stdout: Buffer;
  stderr: Buffer;
}

/** An interactive shell in the lab. */
export interface LabShell {
  /** Its terminal. */
  port: Duplex;
  resize(rows: number, columns: number): Promise<void>;
  /** Its exit status. */
  exited: Promise<number>;
}

/** A virtual host with a working /dev/kvm and this machine's files, read-only, at /host. */
export interface Lab {
  /** The stream to what the engine bundle has opened as `org.nemu.engine`. */
  readonly port: Duplex;
  /** Process number of QEMU. */
  readonly pid: number | undefined;
  /** Settles when the lab has ended, with how it did. */
  readonly ended: Promise<Error>;
  /** Runs a program as root: its arguments, or a line for the shell. */
  exec(command: readonly string[] | string, options?: LabExecOptions): Promise<LabResult>;
  shell(size: { rows: number; columns: number }): LabShell;
  /** Writes a file; folders above it are made. */
  put(path: string, bytes: Uint8Array, mode?: number): Promise<void>;
  /**
   * Calls `start` of the engine bundle, which has the engine open its port. Without its main module the bundle is the
   * one that the image was built with.
   */
  startEngine(bundle?: string, options?: unknown): Promise<void>;
  /** One command of QEMU's machine protocol, for plugging hardware into the lab. */
  qmp(execute: string, args?: object): Promise<unknown>;
  /**
   * Has connections to a port of this host arrive at the same port of the lab.
   * @throws NemuError LAB_FORWARD
   */
  forward(protocol: 'tcp' | 'udp', hostAddress: string, port: number): Promise<void>;
  /** Ends that. */
  unforward(protocol: 'tcp' | 'udp', hostAddress: string, port: number): Promise<void>;
  /** The last lines of its kernel's console. */
  consoleTail(): string;
  /** Ends it; nothing of it stays. */
  close(): Promise<void>;
}

/**
 * Starts a lab: restores the saved one in about a second, after building it if there is none.
 * @throws NemuError LAB_PROGRAM, LAB_BOOT, LAB_ENDED, LAB_RESTORE, LAB_REQUEST
 */
export async function startLab(options: LabOptions = {}): Promise<Lab> {
  const folder = options.snapshot === false ? await mkdtemp(join(tmpdir(), 'nemu-lab-')) : undefined;
  try {
    const { qemu, loader } = folder ? await bootLab(options, join(folder, 'memory')) : await restoreLab(options);
    // QEMU has the memory file open: it goes with QEMU.
    if (folder) await rm(folder, { recursive: true, force: true });
    return await wakeLab(qemu, loader);
  } catch (error) {
    if (folder) await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

/** An image that does not come to life, after a full disk for example, is made anew once. */
async function restoreLab(options: LabOptions): Promise<{ qemu: LabQemu; loader: LoaderClient }> {
  const image = await buildLabImage(options);
  try {
    return await restoreImage(image);
  } catch {
    await rm(image.folder, { recursive: true, force: true });
    return restoreImage(await buildLabImage(options));
  }
}

async function restoreImage({ machine, memoryFile, stateFile }: LabImage) {
  const qemu = new LabQemu(machine, { memoryFile, stateFile, share: false });
  try {
    const loader = new LoaderClient(qemu.loader);
    qemu.ended.then((error) => loader.fail(error));
    await restoreState(qemu);
    return { qemu, loader };
  } catch (error) {
    await qemu.kill();
    throw error;
  }
}

async function wakeLab(qemu: LabQemu, loader: LoaderClient): Promise<Lab> {
  try {
    await loader.call('wake', { milliseconds: Date.now(), host: true }).result;
  } catch (error) {
    await qemu.kill();
    throw error;
  }
  const sleep = loader.keepAwake();
  void qemu.ended.then(sleep);
  let hostRoot: Promise<unknown> | undefined;
  return {
    port: qemu.engine,
    pid: qemu.pid,
    ended: qemu.ended,
    async exec(command, options = {}) {
      const argv = typeof command === 'string' ? ['/bin/sh', '-c', command] : [...command];
      if (options.hostRoot) {
        hostRoot ??= loader.call('hostRoot').result;
        await hostRoot;
        argv.unshift('/bin/busybox', 'chroot', '/hostroot');
      }
      const output: Record<'stdout' | 'stderr', Buffer[]> = { stdout: [], stderr: [] };
      const { env, cwd } = options;
      const call = loader.call<{ status: number | null; signal: string | null }>(
        'exec',
        { argv, env, cwd },
        (stream, bytes) => {
          output[stream].push(bytes);
          options.onOutput?.(stream, bytes);
        },
      );
      if (options.input) call.write(options.input);
      call.end();
      const { status, signal } = await call.result;
      return {
        status: status ?? 128 + signalNumber(signal),
        stdout: Buffer.concat(output.stdout),
        stderr: Buffer.concat(output.stderr),
      };
    },
    shell({ rows, columns }) {
      const { result } = loader.call<{ status: number | null }>('shell', { rows, columns });
      return {
        port: qemu.shell,
        resize: async (newRows, newColumns) => {
          await loader.call('resize', { rows: newRows, columns: newColumns }).result;
        },
        exited: result.then(({ status }) => status ?? 1),
      };
    },
    put: (path, bytes, mode = 0o644) => putFile(loader, path, bytes, mode),
    async startEngine(bundle, engineOptions) {
      if (bundle !== undefined) {
        const sources = (await bundleFiles(bundle)).map((path) => `/host${path}`);
        await loader.call('load', { path: `${BUNDLE_FOLDER}/${basename(sources[0]!)}`, sources }).result;
      }
      await loader.call('start', { options: engineOptions }).result;
    },
    qmp: (execute, args) => qemu.qmp.command(execute, args),
    async forward(protocol, hostAddress, port) {
      const rule = `${protocol}:${hostAddress}:${port}-${LAB_ADDRESS}:${port}`;
      const answer = await qemu.qmp.command('human-monitor-command', { 'command-line': `hostfwd_add net ${rule}` });
      // The monitor says nothing when all is well.
      if (typeof answer === 'string' && answer.trim() !== '') {
        throw new NemuError('LAB_FORWARD', `The lab cannot listen at ${protocol} ${hostAddress}:${port}.`, {
          hint: 'Something else may listen there already: take another port.',
        });
      }
    },
    async unforward(protocol, hostAddress, port) {
      const line = `hostfwd_remove net ${protocol}:${hostAddress}:${port}`;
      await qemu.qmp.command('human-monitor-command', { 'command-line': line });
    },
    consoleTail: () => qemu.consoleTail(),
    close: () => qemu.kill(),
  };
}

function signalNumber(name: string | null): number {
  return constants.signals[name as NodeJS.Signals] ?? 0;
}
