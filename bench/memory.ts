/** Resident memory that is not the guest's: the runtime's, the engine's, and what each vCPU and machine adds. */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseMachine } from '../src/client/description.ts';
import { Machine } from '../src/vmm/machine.ts';
import { ThreadPool } from '../src/vmm/threads.ts';
import type { Figure } from './figures.ts';
import { microGuest } from './micro_guest.ts';
import { nemu, nemuArguments, qemuArguments, Run } from './programs.ts';

const MIB = 2 ** 20;
const GUEST_MIB = 128;

export async function memoryFigures(folder: string): Promise<Figure[]> {
  const image = join(folder, 'idle.elf');
  // Spins: a vCPU that halts in ring 3 would fault.
  writeFileSync(
    image,
    microGuest((code) => code.text('!').put(0xeb, 0xfe)),
  );
  const figures: Figure[] = [];
  const runtime = await nodeAlone();
  const beyond = async (cpus: number) => {
    const run = new Run(nemu, nemuArguments(image, ['--memory', `${GUEST_MIB}M`, '--cpus', String(cpus)]));
    await run.bytes(1);
    const bytes = family(run.child.pid as number).reduce((sum, pid) => sum + residentBeyondGuest(pid), 0);
    await run.kill();
    return bytes / MIB;
  };
  const theirs = async (machine: 'q35' | 'microvm', cpus: number) => {
    const run = new Run(
      'qemu-system-x86_64',
      qemuArguments(machine, image, ['-m', `${GUEST_MIB}M`, '-smp', `${cpus}`]),
    );
    await run.bytes(1);
    const bytes = residentBeyondGuest(run.child.pid as number);
    await run.kill();
    return bytes / MIB;
  };
  const one = await beyond(1);
  const [q35, microvm] = [await theirs('q35', 1), await theirs('microvm', 1)];
  figures.push({
    suite: 'memory',
    what: 'resident beyond guest RAM, 1 vCPU',
    unit: 'MiB',
    nemu: one,
    qemu: { q35, microvm },
  });
  figures.push({ suite: 'memory', what: '  of that, the runtime (node alone)', unit: 'MiB', nemu: runtime, qemu: {} });
  figures.push({ suite: 'memory', what: '  of that, the engine', unit: 'MiB', nemu: one - runtime, qemu: {} });
  figures.push({
    suite: 'memory',
    what: 'each further vCPU',
    unit: 'MiB',
    nemu: ((await beyond(5)) - one) / 4,
    qemu: { q35: ((await theirs('q35', 5)) - q35) / 4, microvm: ((await theirs('microvm', 5)) - microvm) / 4 },
  });
  figures.push({
    suite: 'memory',
    what: 'each further machine in the process',
    unit: 'MiB',
    nemu: await furtherMachine(image),
    qemu: { q35, microvm },
    note: 'A further machine of QEMU is a further process.',
  });
  return figures;
}

/** What Node takes before it does anything. */
async function nodeAlone(): Promise<number> {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000); console.log(1)'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  const bytes = residentBeyondGuest(child.pid as number);
  child.kill();
  return bytes / MIB;
}

async function furtherMachine(image: string): Promise<number> {
  const pool = new ThreadPool();
  const machines: Machine[] = [];
  const resident: number[] = [];
  const COUNT = 4;
  for (let index = 0; index <= COUNT; index++) {
    const description = parseMachine({ memory: { size: GUEST_MIB * MIB }, kernel: { image }, debugExit: true });
    const machine = await Machine.create(description, { pool });
    const printed = new Promise<void>((resolve) => {
      machine.console('com1').onData = () => resolve();
    });
    await machine.start();
    await printed;
    machines.push(machine);
    resident.push(residentBeyondGuest(process.pid) / MIB);
  }
  for (const machine of machines) await machine.close();
  await pool.close();
  return (resident[COUNT] - resident[0]) / COUNT;
}

/** Resident bytes of a process, without mappings of the guest's size. */
function residentBeyondGuest(pid: number): number {
  let bytes = 0;
  let guest = false;
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'latin1').split('\n')) {
    const range = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line);
    // Linux joins neighbouring anonymous mappings: one that holds a guest is at least as large.
    if (range) guest = Number.parseInt(range[2], 16) - Number.parseInt(range[1], 16) >= GUEST_MIB * MIB;
    const resident = /^Rss:\s+(\d+) kB/.exec(line);
    if (resident && !guest) bytes += Number(resident[1]) * 1024;
  }
  return bytes;
}

/** A process with all that it started. */
function family(pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, 'latin1').split(' ').filter(Boolean).map(Number),
  );
  return [pid, ...children.flatMap(family)];
}
