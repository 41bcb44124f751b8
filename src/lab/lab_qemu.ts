import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import type { Duplex } from 'node:stream';
import { NemuError } from '../client/errors.ts';
import { findProgram } from './command.ts';
import { QmpClient } from './qmp.ts';

/** What a lab's virtual machine is made of: the same for the run that is saved and those restored from it. */
export interface LabMachine {
  /** MiB. */
  memory: number;
  cpus: number;
  /** Further QEMU arguments, for hardware that guests of the lab are to get. */
  devices: readonly string[];
}

export interface LabStart {
  /** File that backs the lab's memory. */
  memoryFile: string;
  /** True writes to that file, false maps it privately. */
  share: boolean;
  /** Boots this kernel; without it the machine waits for a saved state in `stateFile`. */
  boot?: { kernel: string; initrd: string; append: string };
  stateFile?: string;
}

/** PCI Express ports that stay free, for devices that are plugged into a restored lab. */
export const FREE_ROOT_PORTS = ['lab-port0', 'lab-port1', 'lab-port2', 'lab-port3'];

const CONSOLE_TAIL_BYTES = 16 << 10;
const STDERR_TAIL_BYTES = 4 << 10;

/** File descriptors of the child: each is one end of a socket pair, so that no socket file is ever made. */
const FD = { loader: 3, engine: 4, console: 5, shell: 6, qmp: 7, state: 8 } as const;

/** One running QEMU. It ends with this process, however that ends. */
export class LabQemu {
  readonly loader: Duplex;
  readonly engine: Duplex;
  readonly shell: Duplex;
  readonly qmp: QmpClient;
  /** Settles when QEMU has ended. */
  readonly ended: Promise<NemuError>;
  readonly #child: ChildProcess;
  #closing = false;
  #consoleTail = '';
  #stderrTail = '';

  constructor(machine: LabMachine, start: LabStart) {
    const qemu = findQemu();
    const state = start.stateFile === undefined ? undefined : openSync(start.stateFile, 'r');
    try {
      const args = qemuArguments(machine, start);
      // setpriv has the kernel end QEMU when the thread that started it is gone, crashes and SIGKILL included.
      this.#child = spawn('setpriv', ['--pdeathsig', 'KILL', qemu, ...args], {
        stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe', 'pipe', 'pipe', 'pipe', state ?? 'ignore'],
        // A terminal's Ctrl-C and its hang-up are the engine's to answer: a lab that they end takes the machine with it.
        detached: true,
      });
    } finally {
      if (state !== undefined) closeSync(state);
    }
    const stream = (fd: number) => this.#child.stdio[fd] as unknown as Duplex;
    this.loader = stream(FD.loader);
    this.engine = stream(FD.engine);
    this.shell = stream(FD.shell);
    this.qmp = new QmpClient(stream(FD.qmp));
    const console = stream(FD.console);
    console.on('data', (bytes: Buffer) => {
      this.#consoleTail = (this.#consoleTail + bytes.toString('utf8')).slice(-CONSOLE_TAIL_BYTES);
    });
    this.#child.stderr?.on('data', (bytes: Buffer) => {
      this.#stderrTail = (this.#stderrTail + bytes.toString('utf8')).slice(-STDERR_TAIL_BYTES);
    });
    // A stream of a QEMU that has ended says EPIPE or ECONNRESET; `ended` has the reason.
    for (const fd of [FD.loader, FD.engine, FD.console, FD.shell, FD.qmp]) stream(fd).on('error', () => {});
    this.ended = new Promise((resolve) => {
      this.#child.on('error', (cause) => resolve(this.#endError(`QEMU could not be started: ${cause.message}`, cause)));
      this.#child.on('close', (code, signal) =>
        resolve(this.#endError(`QEMU ended with ${signal ? `signal ${signal}` : `status ${code}`}`)),
      );
    });
    this.ended.then((error) => this.qmp.fail(error));
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** The last lines of the lab's kernel console. */
  consoleTail(): string {
    return this.#consoleTail;
  }

  /** What `promise` gives, or the error that says how QEMU ended, whichever comes first. */
  async orEnd<T>(promise: Promise<T>): Promise<T> {
    const outcome = await Promise.race([promise.then((value) => ({ value })), this.ended]);
    if (outcome instanceof NemuError) throw outcome;
    return outcome.value;
  }

  /** Ends QEMU and waits until it is gone. */
  async kill(): Promise<void> {
    this.#closing = true;
    this.#child.kill('SIGKILL');
    await this.ended;
    for (const stream of this.#child.stdio) stream?.destroy();
  }

  #endError(what: string, cause?: unknown): NemuError {
    if (this.#closing) return new NemuError('LAB_CLOSED', 'The lab was closed.');
    const words = [this.#stderrTail.trim(), lastLines(this.#consoleTail, 12)].filter(Boolean).join('\n');
    return new NemuError('LAB_ENDED', `The lab is gone: ${what}.${words ? ` Its last words:\n${words}` : ''}`, {
      hint: 'Free memory or disk may be short; "nemu doctor" checks what the lab needs.',
      cause,
    });
  }
}

function lastLines(text: string, count: number): string {
  return text.trim().split('\n').slice(-count).join('\n');
}

/**
 * Path of the emulator.
 * @throws NemuError LAB_PROGRAM with the package to install.
 */
export function findQemu(): string {
  if (process.arch !== 'x64') {
    throw new NemuError(
      'LAB_PROGRAM',
      `There is no lab for hosts of the architecture ${process.arch}, only for x86-64.`,
      {
        hint: "Use this machine's own KVM: --on kvm.",
      },
    );
  }
  const path = findProgram('qemu-system-x86_64');
  if (!path || !findProgram('setpriv')) {
    const missing = path ? 'setpriv' : 'qemu-system-x86_64';
    throw new NemuError('LAB_PROGRAM', `The lab needs the program ${missing}, which this machine does not have.`, {
      hint: `Install it with: sudo apt-get install --no-install-recommends ${path ? 'util-linux' : 'qemu-system-x86'}`,
    });
  }
  return path;
}

/**
 * The emulated host's processor. Without cmpxchg16b, because the emulator stops all its processors for each one
 * with a lock prefix, and QEMU 7.2 delivers an interrupt that was injected into a guest a second time when its
 * processor is stopped before the guest's next exit: guests then hang in a lock, or triple-fault.
 */
const CPU_MODEL = 'max,-cx16';

/** The lab's own network, out of the way of those that guests usually have. Its init has the address .15. */
const LAB_NETWORK = '172.31.255';
export const LAB_ADDRESS = `${LAB_NETWORK}.15`;

/** Arguments that say what the machine is, whatever its memory's file and however it starts. */
export function machineIdentity(machine: LabMachine): string {
  return qemuArguments(machine, { memoryFile: '', share: false }).join(' ');
}

function qemuArguments(machine: LabMachine, start: LabStart): string[] {
  const memory = `memory-backend-file,id=memory,size=${machine.memory}M,mem-path=${escapeComma(start.memoryFile)},share=${start.share ? 'on' : 'off'}`;
  const socket = (id: string, fd: number) => ['-chardev', `socket,id=${id},fd=${fd}`];
  return [
    // Nothing that was not asked for: no default devices, no configuration files of the user.
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-S'],
    ...['-machine', 'q35,accel=tcg,memory-backend=memory', '-cpu', CPU_MODEL, '-smp', String(machine.cpus)],
    ...['-m', `${machine.memory}M`, '-object', memory],
    ...socket('console', FD.console),
    ...['-serial', 'chardev:console'],
    ...['-device', 'virtio-serial-pci,id=ports'],
    ...socket('loader', FD.loader),
    ...['-device', 'virtserialport,bus=ports.0,chardev=loader,name=org.nemu.loader'],
    ...socket('engine', FD.engine),
    ...['-device', 'virtserialport,bus=ports.0,chardev=engine,name=org.nemu.engine'],
    ...socket('shell', FD.shell),
    ...['-device', 'virtconsole,bus=ports.0,chardev=shell'],
    ...['-fsdev', 'local,id=host,path=/,security_model=none,readonly=on,multidevs=remap'],
    ...['-device', 'virtio-9p-pci,fsdev=host,mount_tag=host'],
    // The same again for disks of guests, which are the only files that are written.
    ...['-fsdev', 'local,id=hostrw,path=/,security_model=none,multidevs=remap'],
    ...['-device', 'virtio-9p-pci,fsdev=hostrw,mount_tag=hostrw'],
    ...['-netdev', `user,id=net,net=${LAB_NETWORK}.0/24`, '-device', 'virtio-net-pci,netdev=net'],
    ...['-device', 'virtio-rng-pci'],
    ...FREE_ROOT_PORTS.flatMap((id, index) => [
      '-device',
      `pcie-root-port,id=${id},chassis=${index + 1},slot=${index + 1}`,
    ]),
    ...machine.devices,
    ...socket('qmp', FD.qmp),
    ...['-mon', 'chardev=qmp,mode=control'],
    ...(start.boot
      ? ['-kernel', start.boot.kernel, '-initrd', start.boot.initrd, '-append', start.boot.append]
      : ['-incoming', 'defer']),
    // A machine that is to be saved starts a program which takes its state; all others start none.
    ...(start.share ? [] : ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny']),
  ];
}

/** QEMU's option parser takes a comma as the end of a value unless it is doubled. */
function escapeComma(path: string): string {
  return path.replaceAll(',', ',,');
}

/** Waits for the state file (descriptor 8) to be loaded and lets the machine go on. */
export async function restoreState(qemu: LabQemu): Promise<void> {
  await qemu.orEnd(
    (async () => {
      await qemu.qmp.start();
      await qemu.qmp.command('migrate-set-capabilities', IGNORE_SHARED);
      await qemu.qmp.command('migrate-incoming', { uri: `fd:${FD.state}` });
      await settled(qemu.qmp, 'LAB_RESTORE', 'restored');
      await qemu.qmp.command('cont');
    })(),
  );
}

/** Writes all but the memory, which is in its file already, to `stateFile`. The machine stays stopped. */
export async function saveState(qemu: LabQemu, stateFile: string): Promise<void> {
  await qemu.orEnd(
    (async () => {
      await qemu.qmp.command('stop');
      await qemu.qmp.command('migrate-set-capabilities', IGNORE_SHARED);
      await qemu.qmp.command('migrate', { uri: `exec:cat > '${stateFile.replaceAll("'", "'\\''")}'` });
      await settled(qemu.qmp, 'LAB_SAVE', 'saved');
    })(),
  );
}

const IGNORE_SHARED = { capabilities: [{ capability: 'x-ignore-shared', state: true }] };
const MIGRATION_POLL_MS = 10;
const MIGRATION_TIMEOUT_MS = 60_000;

async function settled(qmp: QmpClient, code: string, verb: string): Promise<void> {
  const deadline = Date.now() + MIGRATION_TIMEOUT_MS;
  while (Date.now() < deadline) {
    const { status, 'error-desc': reason } = (await qmp.command('query-migrate')) as Record<string, string | undefined>;
    if (status === 'completed') return;
    if (status === 'failed' || status === 'cancelled') {
      throw new NemuError(code, `The lab could not be ${verb}: ${reason ?? 'QEMU gave no reason'}.`);
    }
    await new Promise((resolve) => setTimeout(resolve, MIGRATION_POLL_MS));
  }
  throw new NemuError(code, `The lab was not ${verb} within ${MIGRATION_TIMEOUT_MS / 1000} seconds.`);
}
