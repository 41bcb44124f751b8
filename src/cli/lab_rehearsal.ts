/**
 * A guest that the engine runs in a lab before that is saved. On an emulated processor JavaScript that runs for the
 * first time is what costs most: whoever starts a machine in a restored lab finds it compiled.
 */
import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import { Duplex, PassThrough } from 'node:stream';
import { GuestSession } from '../client/guest_session.ts';
import { EngineConnection, type RemoteMachine } from '../client/remote.ts';
import { type MachineFactory, serveMachines } from '../client/serve.ts';

const MiB = 2 ** 20;
/** A rehearsal that takes longer is broken off: the lab is good without. */
const LIMIT_MS = 120_000;
/** V8 compiles a function again, for speed, when it has run more than once. */
const TURNS = 3;

/** Files in the lab. */
export interface RehearsalGuest {
  readonly kernel: string;
  readonly initrd: string;
  /** Where files of its own may lie. */
  readonly folder: string;
}

/**
 * Boots a stock guest, plugs a device of each kind into it, takes them out, and powers it off.
 * @throws NemuError when the guest does not get so far.
 */
export async function playGuest({ kernel, initrd, folder }: RehearsalGuest, create: MachineFactory): Promise<void> {
  const [there, back] = [new PassThrough(), new PassThrough()];
  void serveMachines(Duplex.from({ readable: there, writable: back }), create);
  const connection = new EngineConnection(Duplex.from({ readable: back, writable: there }));
  const disk = `${folder}/disk`;
  const pmem = `${folder}/pmem`;
  for (const file of [disk, pmem]) {
    writeFileSync(file, '');
    truncateSync(file, 128 * MiB);
  }
  try {
    const machine = await connection.create({
      name: 'rehearsal',
      cpus: { count: 1, max: 3 },
      memory: { size: '256M', max: '2G', slots: 4 },
      kernel: { image: kernel, initrd: [initrd], cmdline: 'console=ttyS0 quiet panic=-1' },
      serial: ['com1', 'com2', 'com3', 'com4'].map((port) => ({ port: port as 'com1' })),
      pcie: { rootPorts: 2 },
      disks: [{ file: disk, readonly: true }],
      nets: [],
      rng: true,
      devices: [{ type: 'virtio-console' }, { type: 'virtio-balloon' }],
    });
    const timer = setTimeout(() => void machine.close(), LIMIT_MS);
    try {
      await play(machine, disk, pmem);
    } finally {
      clearTimeout(timer);
      await machine.close();
    }
  } finally {
    connection.close();
    for (const file of [disk, pmem]) rmSync(file);
  }
}

/** Characters of the console that are told when it fails. */
const TAIL = 3000;

async function play(machine: RemoteMachine, disk: string, pmem: string): Promise<void> {
  let tail = '';
  machine.console('com1').onData = (bytes) => {
    tail = (tail + Buffer.from(bytes).toString('latin1')).slice(-TAIL);
  };
  try {
    await changeEverything(machine, disk, pmem);
  } catch (error) {
    throw new Error(`${(error as Error).message} Its console:\n${tail}`);
  }
}

async function changeEverything(machine: RemoteMachine, disk: string, pmem: string): Promise<void> {
  const guest = GuestSession.of(machine);
  await machine.start();
  await guest?.settled;
  await guest?.run('dd if=/dev/vda of=/dev/null bs=64k count=64');
  for (let turn = 0; turn < TURNS; turn++) {
    await machine.plug({ kind: 'cpu' });
    await machine.plug({ kind: 'memory', size: '128M', id: 'dimm' });
    await machine.plug({ kind: 'pci', type: 'virtio-blk', file: disk, readonly: true, id: 'disk9' });
    await machine.plug({ kind: 'nvdimm', file: pmem, size: '128M', id: 'nvdimm' });
    await machine.inspect();
    await machine.counters();
    const leaves = machine.unplug('nvdimm');
    // Linux lets go of NVDIMMs when its driver reads the NFIT anew.
    await guest?.run('cd /sys/bus/acpi/drivers/nfit; echo ACPI0012:00 >unbind; echo ACPI0012:00 >bind');
    await leaves;
    for (const id of ['disk9', 'dimm', 'cpu1']) await machine.unplug(id);
  }
  void guest?.run('poweroff -f').catch(() => {});
  await machine.ended();
}
