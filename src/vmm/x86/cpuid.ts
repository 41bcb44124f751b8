import { Arena } from '../../ffi/arena.ts';
import { KVM_CAP } from '../../ffi/kvm/common.ts';
import {
  KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
  KVM_GET_SUPPORTED_CPUID,
  KVM_SET_CPUID2,
  kvm_cpuid_entry2,
  kvm_cpuid2,
} from '../../ffi/kvm/x86.ts';
import { check, errno, errnoName, raw } from '../../ffi/libc.ts';
import type { Kvm, KvmVcpu } from '../kvm.ts';
import { withTopologyLeaves } from './amd_topology.ts';
import { apicIdOf, type Topology, topologyBits } from './topology.ts';

/** One row of a CPUID table: leaf, subleaf and the four registers, unsigned. */
export interface CpuidEntry {
  function: number;
  index: number;
  flags: number;
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
}

const MAX_ENTRIES = 256;

/** What KVM can give a guest on this host (KVM_GET_SUPPORTED_CPUID). */
export function supportedCpuid(kvm: Kvm): CpuidEntry[] {
  const arena = new Arena(kvm_cpuid2.size + MAX_ENTRIES * kvm_cpuid_entry2.size);
  const block = arena.alloc(kvm_cpuid2.size + MAX_ENTRIES * kvm_cpuid_entry2.size);
  const header = kvm_cpuid2.on(block.view);
  header.nent = MAX_ENTRIES;
  check(raw.ioctl(kvm.fd, KVM_GET_SUPPORTED_CPUID, block.address), 'ioctl', 'KVM_GET_SUPPORTED_CPUID', MAX_ENTRIES);
  const entries = Array.from({ length: header.nent }, (_, i) => {
    const entry = kvm_cpuid_entry2.on(block.view, kvm_cpuid2.size + i * kvm_cpuid_entry2.size);
    const { function: leaf, index, flags, eax, ebx, ecx, edx } = entry;
    return { function: leaf, index, flags, eax, ebx, ecx, edx };
  });
  arena.free();
  return entries;
}

/** Width of physical addresses: leaf 0x80000008, or 36 bits where there is none. */
export const physicalAddressBits = (entries: readonly CpuidEntry[]): number =>
  (entries.find((entry) => entry.function === 0x80000008)?.eax ?? 36) & 0xff;

const LEAF1_ECX_X2APIC = 1 << 21;
const LEAF1_ECX_TSC_DEADLINE = 1 << 24;
const LEAF1_ECX_OSXSAVE = 1 << 27;
const LEAF1_ECX_HYPERVISOR = 1 << 31;
const LEAF1_EDX_HTT = 1 << 28;
const EXT1_ECX_CMP_LEGACY = 1 << 1;
const EXT1_ECX_TOPOEXT = 1 << 22;

/** Is the table AMD's (or Hygon's): those enumerate cores and caches in extended leaves. */
function isAmd(entries: readonly CpuidEntry[]): boolean {
  const leaf0 = entries.find((entry) => entry.function === 0);
  // "Auth" of AuthenticAMD and "Hygo" of HygonGenuine, as EBX holds them.
  return leaf0?.ebx === 0x68747541 || leaf0?.ebx === 0x6f677948;
}

/**
 * The CPUID table of one vCPU: the host's, with the guest's topology in it.
 *
 * Sources: Intel SDM volume 2, CPUID (leaves 1, 4, 0xB, 0x1F); AMD APM volume 3, appendix E
 * (leaves 0x80000001, 0x80000008, 0x8000001D, 0x8000001E).
 *
 * @param supported what KVM offers.
 * @param tscDeadline KVM_CAP_TSC_DEADLINE_TIMER is there.
 */
export function guestCpuid(
  supported: readonly CpuidEntry[],
  topology: Topology,
  vcpu: number,
  tscDeadline: boolean,
): CpuidEntry[] {
  const apicId = apicIdOf(vcpu, topology);
  const { threadBits, coreBits, packageShift } = topologyBits(topology);
  const perPackage = topology.cores * topology.threads;
  const amd = isAmd(supported);
  const maxLeaf = supported.find((entry) => entry.function === 0)?.eax ?? 0;
  const out: CpuidEntry[] = [];
  for (const source of amd ? withTopologyLeaves(supported) : supported) {
    const entry = { ...source };
    switch (entry.function) {
      case 1:
        entry.ebx = ((entry.ebx & 0xff00) | (1 << 16) | (apicId << 24)) >>> 0;
        if (perPackage > 1) {
          entry.ebx = ((entry.ebx & 0xff00ffff) | (Math.min(255, 1 << packageShift) << 16)) >>> 0;
          entry.edx = (entry.edx | LEAF1_EDX_HTT) >>> 0;
        } else {
          entry.edx = (entry.edx & ~LEAF1_EDX_HTT) >>> 0;
        }
        entry.ecx = ((entry.ecx & ~LEAF1_ECX_OSXSAVE) | LEAF1_ECX_X2APIC | LEAF1_ECX_HYPERVISOR) >>> 0;
        if (tscDeadline) entry.ecx = (entry.ecx | LEAF1_ECX_TSC_DEADLINE) >>> 0;
        break;
      case 4: {
        const type = entry.eax & 0x1f;
        if (type === 0) break;
        const level = (entry.eax >>> 5) & 7;
        const sharing = level >= 3 ? (1 << packageShift) - 1 : (1 << threadBits) - 1;
        entry.eax = ((entry.eax & 0x3fff) | (sharing << 14) | (((1 << coreBits) - 1) << 26)) >>> 0;
        break;
      }
      case 0xb:
      case 0x1f:
        continue;
      case 0x80000001:
        if (!amd) break;
        entry.ecx = (entry.ecx & ~EXT1_ECX_CMP_LEGACY) >>> 0;
        if (perPackage > 1) entry.ecx = (entry.ecx | EXT1_ECX_CMP_LEGACY) >>> 0;
        entry.ecx = (entry.ecx | EXT1_ECX_TOPOEXT) >>> 0;
        break;
      case 0x80000008:
        if (amd) entry.ecx = ((packageShift << 12) | Math.min(255, perPackage - 1)) >>> 0;
        break;
      case 0x8000001d: {
        if (!amd || (entry.eax & 0x1f) === 0) break;
        const level = (entry.eax >>> 5) & 7;
        const sharing = (level >= 3 ? perPackage : topology.threads) - 1;
        entry.eax = ((entry.eax & 0x3fff) | (sharing << 14)) >>> 0;
        break;
      }
      case 0x8000001e:
        if (!amd) break;
        entry.eax = apicId;
        entry.ebx = ((topology.threads - 1) << 8) | ((apicId >> threadBits) & ((1 << coreBits) - 1));
        entry.ecx = apicId >> packageShift;
        entry.edx = 0;
        break;
    }
    out.push(entry);
  }
  for (const leaf of [0xb, 0x1f]) {
    if (maxLeaf < leaf) continue;
    const levels = [
      { shift: threadBits, count: topology.threads, type: 1 },
      { shift: packageShift, count: perPackage, type: 2 },
      { shift: 0, count: 0, type: 0 },
    ];
    for (const [index, { shift, count, type }] of levels.entries()) {
      out.push({
        function: leaf,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: (type << 8) | index,
        edx: apicId,
      });
    }
  }
  return out;
}

/** KVM_SET_CPUID2. */
export function setCpuid(vcpu: KvmVcpu, entries: readonly CpuidEntry[]): void {
  const arena = new Arena(kvm_cpuid2.size + entries.length * kvm_cpuid_entry2.size);
  const block = arena.alloc(kvm_cpuid2.size + entries.length * kvm_cpuid_entry2.size);
  kvm_cpuid2.on(block.view).nent = entries.length;
  for (const [i, entry] of entries.entries()) {
    Object.assign(kvm_cpuid_entry2.on(block.view, kvm_cpuid2.size + i * kvm_cpuid_entry2.size), entry);
  }
  const result = raw.ioctl(vcpu.fd, KVM_SET_CPUID2, block.address);
  const error = result < 0 ? errnoName(errno()) : '';
  arena.free();
  if (error) throw new Error(`KVM_SET_CPUID2 with ${entries.length} entries failed: ${error}.`);
}

export const hasTscDeadline = (kvm: Kvm): boolean => kvm.extension(KVM_CAP.TSC_DEADLINE_TIMER) > 0;
