/** Time from exec to the guest's first instruction, which sends a byte. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Figure, median } from './figures.ts';
import { microGuest } from './micro_guest.ts';
import { nemu, nemuArguments, qemuArguments, Run } from './programs.ts';

export async function startupFigures(folder: string, { runs = 7 } = {}): Promise<Figure[]> {
  const image = join(folder, 'first.elf');
  writeFileSync(
    image,
    microGuest((code) => code.text('!').end()),
  );
  const samples: Record<string, number[]> = { nemu: [], q35: [], microvm: [] };
  const time = async (command: string, args: readonly string[]) => {
    const run = new Run(command, args);
    await run.bytes(1);
    await run.exited;
    return run.firstByte as number;
  };
  for (let turn = 0; turn < runs; turn++) {
    samples.nemu.push(await time(nemu, nemuArguments(image)));
    for (const machine of ['q35', 'microvm'] as const) {
      samples[machine].push(await time('qemu-system-x86_64', qemuArguments(machine, image)));
    }
  }
  return [
    {
      suite: 'startup',
      what: 'exec to first guest instruction',
      unit: 'ms',
      nemu: median(samples.nemu),
      qemu: { q35: median(samples.q35), microvm: median(samples.microvm) },
      note: "QEMU's first byte comes after its firmware; where KVM emulates guest kernel mode, that is slow.",
    },
  ];
}
