/** What a guest's kernel warns of: nothing, unless it is listed here with its reason. */
import { expect } from 'vitest';

/** Put this into a guest's script: the warnings come on standard error. */
export const PRINT_WARNINGS = "dmesg -r | grep -E '^<[0-4]>' >/tmp/warnings; sed 's/^/WARNING /' /tmp/warnings >&2";

const ALLOWED = [
  // The processor is the host's, and AMD's driver asks for ACPI objects (_CPC) that only a real board has.
  /amd_pstate: the _CPC object is not present/,
  // Emulated hosts stop their guests for seconds; the kernel measures that, and says so.
  /clocksource: .*(Long readout interval|watchdog|skew|'kvm-clock'|'tsc')/,
  /hrtimer: interrupt took/,
  // Without the TSC deadline timer (4 vCPUs and more in the lab) the kernel measures the local APIC's: a read of the
  // PM timer is an exit, which takes milliseconds there. It goes on with what the PM timer says.
  /APIC calibration not consistent with PM-Timer: (8\d|9\d|1[01]\d)ms instead of 100ms$/,
  // The kernel's own configuration.
  /CONFIG_IMA_DISABLE_HTABLE is disabled/,
];

/**
 * While Linux takes a DIMM offline it moves every page, tries those again that somebody holds for a moment, and prints
 * each (mm/memory_hotplug.c, do_migrate_range). Whether the DIMM left is for the test to see.
 * For DIMMs from 4 GiB on, of machines whose other memory is below: its pages are none that it may speak of.
 */
export const TAKEN_OFFLINE: readonly RegExp[] = [
  /(failed to isolate pfn|migrating pfn) [1-9a-f][0-9a-f]{5}( failed ret:\d+)?$/,
  /page: refcount:\d+ mapcount:\d+ .* pfn:0x[1-9a-f][0-9a-f]{5}$/,
  /\] (memcg:|(anon |ksm )?flags: |raw: )[0-9a-fx]/,
  /\] aops:\w+ ino:/,
  /page dumped because: (isolation failed|migration failure)$/,
  /do_migrate_range: \d+ callbacks suppressed$/,
];

/**
 * @param machine what a kind of machine is to be warned of, besides.
 * @throws an assertion that lists the warnings.
 */
export function expectNoWarnings(stderr: string, machine: readonly RegExp[] = []): void {
  const warnings = stderr
    .split(/\r?\n/)
    .filter((line) => line.startsWith('WARNING '))
    .map((line) => line.slice('WARNING '.length))
    .filter((line) => ![...ALLOWED, ...machine].some((allowed) => allowed.test(line)));
  expect(warnings).toEqual([]);
}
