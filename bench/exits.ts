/** What an exit costs: the same loop in ring 3 of the same micro-guest, under us and under QEMU. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Figure, median } from './figures.ts';
import { type Code32, microGuest } from './micro_guest.ts';
import { nemu, nemuArguments, qemuArguments, Run } from './programs.ts';

const bytes32 = (value: number) => [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
const inByte = (port: number) => (code: Code32) => code.put(0x66, 0xba, port & 0xff, port >> 8, 0xec);
const outByte = (port: number) => (code: Code32) => code.put(0x66, 0xba, port & 0xff, port >> 8, 0xb0, 0, 0xee);
/** mov eax, [address] */
const load = (address: number) => (code: Code32) => code.put(0xa1, ...bytes32(address));

interface Loop {
  readonly what: string;
  readonly body: (code: Code32) => void;
  /** Machines of QEMU that have it. */
  readonly only?: readonly ('q35' | 'microvm')[];
}

const LOOPS: readonly Loop[] = [
  { what: 'port read, served by the vCPU thread (16550 LSR)', body: inByte(0x3fd) },
  { what: 'port read, served by the vCPU thread (PCI configuration data)', body: inByte(0xcfc), only: ['q35'] },
  { what: 'port read, forwarded to the machine thread (CMOS data)', body: inByte(0x71), only: ['q35'] },
  { what: 'port write, forwarded to the machine thread (16550 scratch)', body: outByte(0x3ff) },
  { what: 'port read that no device answers', body: inByte(0x2e0) },
  { what: 'memory read, forwarded to the machine thread (ECAM)', body: load(0xb000_0000), only: ['q35'] },
  { what: 'memory read that no device answers', body: load(0xfed8_0000) },
];

export async function exitFigures(folder: string, { count = 20_000, runs = 5 } = {}): Promise<Figure[]> {
  const frequency = tscFrequency();
  const figures: Figure[] = [];
  for (const [index, { what, body, only = ['q35', 'microvm'] as const }] of LOOPS.entries()) {
    const image = join(folder, `exit-${index}.elf`);
    writeFileSync(
      image,
      microGuest((code) => code.text('>').keepTime().repeat(count, body).sendTime().end()),
    );
    const time = async (command: string, args: readonly string[]) => {
      const run = new Run(command, args);
      const output = await run.bytes(9);
      await run.exited;
      // A firmware may have said something before.
      const ticks = output.readBigUInt64LE(output.lastIndexOf('>', -9) + 1);
      return Number(ticks) / frequency / count;
    };
    const samples: Record<string, number[]> = { nemu: [], q35: [], microvm: [] };
    // Taken in turns, so that a noisy minute meets all of them.
    for (let turn = 0; turn < runs; turn++) {
      samples.nemu.push(await time(nemu, nemuArguments(image)));
      for (const machine of only)
        samples[machine].push(await time('qemu-system-x86_64', qemuArguments(machine, image)));
    }
    figures.push({
      suite: 'exits',
      what,
      unit: 'µs',
      nemu: median(samples.nemu),
      qemu: Object.fromEntries(only.map((machine) => [machine, median(samples[machine])])),
    });
  }
  return figures;
}

/** Ticks a microsecond of the time stamp counter, measured by the kernel when it booted. */
function tscFrequency(): number {
  const mhz = /cpu MHz\s*: ([\d.]+)/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
  if (!mhz) throw new Error('/proc/cpuinfo names no frequency.');
  return Number(mhz);
}
