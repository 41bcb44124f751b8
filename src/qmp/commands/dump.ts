/** The guest's whole memory in a file. */
import type { FileHandle } from 'node:fs/promises';
import * as z from 'zod';
import type { MachineClient } from '../../client/machine_client.ts';
import { command } from '../command.ts';
import { type CoreRange, coreHeader, prstatus } from '../elf_core.ts';
import { QmpError } from '../errors.ts';
import { createFile } from '../files.ts';
import type { Monitor } from '../monitor.ts';
import { bool, int, none, str } from '../types.ts';

/** Bytes that are read from the guest at once. */
const PIECE = 1 << 20;

export const dumpStatus = z.strictObject({
  status: z.enum(['none', 'active', 'completed', 'failed']),
  completed: int,
  total: int,
});
export type DumpStatus = z.output<typeof dumpStatus>;

const argumentsSchema = z.strictObject({
  ...{ paging: bool, protocol: str, detach: bool.optional(), begin: int.optional(), length: int.optional() },
  format: z.enum(['elf']).optional(),
});

/** What of the guest's RAM lies between two addresses. */
async function rangesOf({ machine }: Monitor, begin: number, end: number): Promise<CoreRange[]> {
  const [all, { memory }] = await Promise.all([machine.memoryMap(), machine.plugged()]);
  return all.flatMap(({ address, size, dimm }) => {
    // Of a virtio-mem device nothing can be plugged behind what is usable.
    const reach = memory.virtio.find(({ id }) => id === dimm)?.usable ?? size;
    const [from, to] = [Math.max(address, begin), Math.min(address + reach, end)];
    return from < to ? [{ address: from, size: to - from }] : [];
  });
}

/** What stands there; zeros for blocks of a virtio-mem device that are not plugged. */
async function plugged(machine: MachineClient, address: number, count: number): Promise<Uint8Array> {
  try {
    return await machine.readMemory(address, count);
  } catch (error) {
    if ((error as { code?: unknown }).code !== 'ADDRESS') throw error;
    return new Uint8Array(count);
  }
}

async function write(monitor: Monitor, file: FileHandle, ranges: readonly CoreRange[]): Promise<void> {
  const { machine } = monitor;
  const vcpus = await machine.inspect();
  const info = await machine.vmcoreinfo();
  const notes = [...vcpus.map(({ index, registers = {} }) => prstatus(index, registers)), ...(info ? [info] : [])];
  await file.write(coreHeader(ranges, notes).bytes);
  for (const { address, size } of ranges) {
    for (let done = 0, count = 0; done < size; done += count) {
      // No piece reaches over the border of a block of a virtio-mem device.
      count = Math.min(PIECE - ((address + done) % PIECE), size - done);
      await file.write(await plugged(machine, address + done, count));
      monitor.dump = { ...monitor.dump, completed: monitor.dump.completed + count };
    }
  }
}

/** The machine stands still meanwhile: what is in the file belongs together. */
async function dump(monitor: Monitor, file: FileHandle, ranges: readonly CoreRange[]): Promise<void> {
  const stands = () => monitor.machine.state === 'paused';
  const ran = !stands();
  let error: string | undefined;
  try {
    if (ran) await monitor.machine.pause();
    await write(monitor, file, ranges);
    monitor.dump = { ...monitor.dump, status: 'completed' };
  } catch (cause) {
    error = (cause as Error).message;
    monitor.dump = { ...monitor.dump, status: 'failed' };
  } finally {
    await file.close();
    if (ran && stands()) await monitor.machine.resume();
  }
  monitor.emit('DUMP_COMPLETED', { result: monitor.dump, ...(error !== undefined && { error }) });
  if (error !== undefined) throw new QmpError(error);
}

async function start(monitor: Monitor, args: z.output<typeof argumentsSchema>): Promise<void> {
  const { begin, length } = args;
  if (args.paging) throw new QmpError('Memory is dumped by guest-physical addresses: paging must be false');
  if ((begin === undefined) !== (length === undefined)) {
    throw new QmpError(`Parameter '${begin === undefined ? 'begin' : 'length'}' is missing`);
  }
  if (!args.protocol.startsWith('file:')) throw new QmpError("parameter 'protocol' must be 'file:PATH'");
  if (monitor.dump.status === 'active') throw new QmpError('There is a dump in process, please wait.');
  const end = begin === undefined || length === undefined ? Number.POSITIVE_INFINITY : begin + length;
  const ranges = await rangesOf(monitor, begin ?? 0, end);
  if (ranges.length === 0) throw new QmpError('There is no memory in this range');
  const total = ranges.reduce((sum, { size }) => sum + size, 0);
  const file = await createFile(args.protocol.slice('file:'.length));
  monitor.dump = { status: 'active', completed: 0, total };
  const done = dump(monitor, file, ranges);
  // What becomes of it is told by its event.
  if (args.detach) done.catch(() => {});
  else await done;
}

export const DUMP = [
  command({
    name: 'dump-guest-memory',
    summary: "writes the guest's memory and registers to an ELF core file, while the guest stands still",
    changes: true,
    args: argumentsSchema,
    returns: none,
    run: async (monitor, args) => {
      await start(monitor, args);
      return {};
    },
  }),
  command({
    name: 'query-dump',
    summary: 'how far the last dump is',
    args: none,
    returns: dumpStatus,
    run: ({ dump: last }) => last,
  }),
  command({
    name: 'query-dump-guest-memory-capability',
    summary: 'formats of a dump: ELF',
    args: none,
    returns: z.strictObject({ formats: z.array(z.enum(['elf'])) }),
    run: () => ({ formats: ['elf' as const] }),
  }),
];
