import { readdirSync, readFileSync } from 'node:fs';
import type { CountersReport, HostReport, VcpuReport } from '../client/machine_client.ts';
import type { GuestMemory } from '../devices/device.ts';
import { KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED } from '../ffi/kvm/common.ts';
import type { Board } from './board.ts';
import type { CoalescedRing } from './coalesced.ts';
import { exitName } from './exit.ts';
import type { Processors } from './processors.ts';
import { C, counterIndex, type LocalRegister, RUN_STATE_NAMES, S, type SharedBlock, slotWord } from './shared.ts';

const ACTIVITY: Record<number, VcpuReport['activity']> = {
  [KVM_MP_STATE_RUNNABLE]: 'running',
  [KVM_MP_STATE_UNINITIALIZED]: 'uninitialised',
  [KVM_MP_STATE_HALTED]: 'halted',
  2: 'waiting for SIPI',
  4: 'waiting for SIPI',
};

/** What a thread of this process had of the processors, in nanoseconds (proc_pid_schedstat(5)); 0 once it has ended. */
function cpuTime(thread: number): number {
  try {
    return Number(readFileSync(`/proc/self/task/${thread}/schedstat`, 'latin1').split(' ')[0]);
  } catch {
    return 0;
  }
}

/** What each vCPU did and does. @param memory to read registers too; the vCPUs must be out of the guest. */
export function reportVcpus(
  block: SharedBlock,
  processors: Processors,
  local: readonly LocalRegister[],
  memory: GuestMemory | undefined,
): VcpuReport[] {
  return processors.present.map((index) => {
    const slot = slotWord(index);
    const counter = (number: number) => block.doubles[counterIndex(index, number)];
    const exits: Record<string, number> = {};
    for (let reason = 0; reason < C.LOCAL; reason++) {
      if (counter(C.REASON + reason) > 0) exits[exitName(reason)] = counter(C.REASON + reason);
    }
    const threadId = Atomics.load(block.words, slot + S.TID);
    const report: VcpuReport = {
      index,
      apicId: processors.apicId(index),
      threadId,
      cpuTime: cpuTime(threadId),
      state: RUN_STATE_NAMES[Atomics.load(block.words, slot + S.RUN_STATE)],
      exits,
      local: Object.fromEntries(local.map((register, i) => [register.name, counter(C.LOCAL + i)])),
      forwarded: counter(C.FORWARDED),
      slept: counter(C.SLEPT),
      kicks: counter(C.KICKS),
    };
    if (!memory) return report;
    const { mpState, ...values } = processors.registersOf(index);
    const activity = ACTIVITY[Number(mpState)];
    const halted = activity === 'running' && processors.standsAtHlt(index, memory);
    return { ...report, registers: values, activity: halted ? 'halted' : activity };
  });
}

export function reportCounters(
  block: SharedBlock,
  processors: Processors,
  board: Board,
  coalesced: CoalescedRing,
  wakeups: number,
): CountersReport {
  const vcpus = reportVcpus(block, processors, board.local, undefined);
  const served = new Map<string, number>();
  for (const { local } of vcpus) {
    for (const [name, count] of Object.entries(local)) served.set(name, (served.get(name) ?? 0) + count);
  }
  const latched = vcpus.reduce((sum, { index }) => sum + block.doubles[counterIndex(index, C.LATCHED)], 0);
  const regions = [...board.pio.counters(), ...board.mmio.counters()].map((region) => ({ ...region }));
  // What a vCPU thread served never reached the bus: it belongs to the region all the same.
  for (const register of board.local) {
    const region = regions.find(
      ({ space, base, size }) => space === 'pio' && register.port >= base && register.port < base + size,
    );
    if (!region) continue;
    const writes = register.kind === 'pci-address' ? latched : 0;
    region.reads += (served.get(register.name) ?? 0) - writes;
    region.writes += writes;
  }
  return {
    vcpus,
    regions,
    unclaimed: {
      reads: board.pio.unclaimed.reads + board.mmio.unclaimed.reads,
      writes: board.pio.unclaimed.writes + board.mmio.unclaimed.writes,
    },
    coalesced: { writes: coalesced.writes, drains: coalesced.drains },
    total: vcpus.reduce((sum, { exits }) => sum + Object.values(exits).reduce((a, b) => a + b, 0), 0),
    wakeups,
    host: reportHost(processors),
  };
}

const entries = (folder: string) => readdirSync(folder).length;

function reportHost({ vm }: Processors): HostReport {
  return {
    ...vm.inUse,
    descriptors: entries('/proc/self/fd'),
    threads: entries('/proc/self/task'),
    heap: process.memoryUsage().heapUsed,
  };
}
