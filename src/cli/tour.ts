import { join } from 'node:path';
import { parseMachine } from '../client/description.ts';
import { GuestSession } from '../client/guest_session.ts';
import { table } from '../client/text_table.ts';
import { guestBoot } from './default_guest.ts';
import { EXIT } from './exit_codes.ts';
import { runFolder } from './paths.ts';
import { openPlace, type PlaceChoice } from './place.ts';
import { labProgress } from './progress.ts';
import { exitsByReason, regionTable } from './report.ts';

/** What the guest shows of itself: one section a line, name and command. */
const GUEST_SCRIPT = [
  ['kernel', 'uname -srvm'],
  ['processors', 'nproc; grep -m1 "model name" /proc/cpuinfo | cut -d: -f2'],
  ['hypervisor', 'cat /sys/hypervisor/type 2>/dev/null || dmesg | grep -o "Hypervisor detected: .*"'],
  ['memory', 'grep -E "MemTotal|MemAvailable" /proc/meminfo'],
  ['ACPI OEM id', 'dd if=/sys/firmware/acpi/tables/FACP bs=1 skip=10 count=6 2>/dev/null; echo'],
  ['ACPI tables', 'ls /sys/firmware/acpi/tables | grep -v -E "^(data|dynamic)$" | tr "\\n" " "; echo'],
] as const;

/** `npm start` without a terminal: boots the default guest, shows what there is, and powers off. */
export async function tour(on: PlaceChoice): Promise<number> {
  const begin = performance.now();
  const out = (text = '') => process.stdout.write(`${text}\n`);
  const phases: [string, number][] = [];
  const mark = (name: string) => phases.push([name, Math.round(performance.now() - begin)]);
  const script = GUEST_SCRIPT.map(([name, command]) => `echo '## ${name}'; ${command}`).join('\n');
  const { name, ...kernel } = await guestBoot({ isFile: false, initrd: [], task: { command: script } });
  const place = await openPlace(on, { vcpus: 2, progress: labProgress() });
  try {
    mark(place.kind === 'lab' ? 'lab restored' : 'KVM opened');
    out(
      `NEMU boots ${name} ${place.kind === 'lab' ? `in the lab (${place.reason ?? 'as asked'})` : "under this host's KVM"}.`,
    );
    const description = parseMachine({
      cpus: { count: 2 },
      kernel,
      serial: ['com1', { port: 'com2', flow: 'wait' }, { port: 'com3', flow: 'wait' }, { port: 'com4', flow: 'wait' }],
      onReset: 'stop',
    });
    const machine = await place.create(description, { postMortem: join(runFolder(), 'post-mortem') });
    try {
      mark('machine made');
      const guest = GuestSession.of(machine);
      if (guest) guest.onPhase = ({ name: phase, uptime }) => mark(`guest ${phase} (guest clock ${uptime} s)`);
      const output: Uint8Array[] = [];
      const kernelLog: Uint8Array[] = [];
      machine.console('com1').onData = (bytes) => kernelLog.push(bytes);
      machine.console('com2').onData = (bytes) => output.push(bytes);
      machine.console('com3').onData = (bytes) => output.push(bytes);
      await machine.start();
      mark('first instruction');
      const end = await machine.ended();
      mark('powered off');
      await new Promise((resolve) => setTimeout(resolve, 50));
      if (guest?.status !== 0) {
        out(Buffer.concat(kernelLog).toString().trim());
        out(`The guest did not finish: ${end.detail}`);
        return EXIT.NO_STATUS;
      }
      out(`\n${Buffer.concat(output).toString().trim()}`);
      const counters = await machine.counters();
      out(`\n## time, in ms from the start\n${table(['phase', 'at'], phases)}`);
      out(`\n## exits to user space: ${counters.total}, ${counters.coalesced.writes} writes gathered without one`);
      out(table(['reason', 'count'], exitsByReason(counters)));
      out(`\n## devices\n${regionTable(counters)}`);
      return EXIT.OK;
    } finally {
      await machine.close();
    }
  } finally {
    await place.close();
  }
}
