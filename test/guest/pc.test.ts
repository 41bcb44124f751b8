/** The machine of i440FX and PIIX: interrupts over PIRQ links, and a device that the guest lets go of. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runNemu } from '../support/cli.ts';
import { expectNoWarnings, PRINT_WARNINGS } from '../support/dmesg.ts';

const LIMIT_MS = 300_000;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-pc-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test(
  'a stock kernel finds the chipset, takes INTx through its links, and ejects a device',
  async () => {
    const disk = join(folder, 'disk.img');
    writeFileSync(disk, new Uint8Array(1 << 20));
    const script = [
      PRINT_WARNINGS,
      'cd /sys/bus/pci/devices; for d in *; do echo $d $(cat $d/vendor $d/device); done',
      'dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null',
      'grep -o "IO-APIC *1[01]-fasteoi *virtio.*" /proc/interrupts',
      'echo 0 >/sys/bus/pci/slots/3/power; ls',
      'ls /sys/bus/pci/slots | wc -l',
      "dmesg | grep -o 'hpet0: .*'",
      'cd /sys/devices/system/clocksource/clocksource0; echo hpet >current_clocksource; sleep 0.3; cat current_clocksource',
    ].join('\n');
    const { status, stdout, stderr } = await runNemu([
      ...['run', '--machine', 'pc', '--append', 'pci=nomsi', '--device', 'pci-bridge,id=br0'],
      ...['--disk', `${disk},port=br0`, '--rng', '--net', 'none', '--hpet'],
      ...['--timeout', '90', '--', script],
    ]);
    expect(status, stderr).toBe(0);
    // An i440fx has no memory-mapped configuration space. With an HPET the kernel imitates the RTC's interrupts, and
    // says when it came too late for one: in the lab it may.
    expectNoWarnings(stderr, [/fail to add MMCONFIG information/, /hpet: Lost \d+ RTC interrupts/]);
    expect(
      stdout
        .toString()
        .trim()
        .split(/\n/)
        .map((line) => line.replaceAll(/\s+/g, ' ')),
    ).toEqual([
      '0000:00:00.0 0x8086 0x1237',
      '0000:00:01.0 0x8086 0x7000',
      '0000:00:01.3 0x8086 0x7113',
      '0000:00:02.0 0x1b36 0x0001',
      '0000:00:03.0 0x1af4 0x1044',
      '0000:01:01.0 0x1af4 0x1042',
      // INTA of device 1 behind a bridge is the bridge's INTB: PIRQC, as INTA of device 3.
      'IO-APIC 11-fasteoi virtio1, virtio0',
      '0000:00:00.0 0000:00:01.0 0000:00:01.3 0000:00:02.0 0000:01:01.0',
      '30',
      'hpet0: at MMIO 0xfed00000, IRQs 2, 8, 0',
      'hpet0: 3 comparators, 64-bit 100.000000 MHz counter',
      'hpet',
    ]);
  },
  LIMIT_MS,
);
