/** CPUID features by the names that /proc/cpuinfo gives them, to take them from a guest. */
import type { CpuidEntry } from './cpuid.ts';

type CpuidRegister = 'eax' | 'ebx' | 'ecx' | 'edx';

interface FeatureBit {
  readonly leaf: number;
  readonly subleaf: number;
  readonly register: CpuidRegister;
  readonly bit: number;
  /** Features that mean nothing without this one. */
  readonly carries?: readonly string[];
}

const at = (leaf: number, register: CpuidRegister, bit: number, carries?: readonly string[]): FeatureBit => ({
  leaf,
  subleaf: 0,
  register,
  bit,
  ...(carries && { carries }),
});

/** Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E. */
const FEATURES: Readonly<Record<string, FeatureBit>> = {
  xsave: at(1, 'ecx', 26, ['avx', 'pku', 'xsaveopt', 'xsavec', 'xgetbv1', 'xsaves']),
  avx: at(1, 'ecx', 28, ['fma', 'f16c', 'avx2', 'avx512f', 'vaes', 'vpclmulqdq', 'avx_vnni', 'xop', 'fma4']),
  fma: at(1, 'ecx', 12),
  f16c: at(1, 'ecx', 29),
  pcid: at(1, 'ecx', 17, ['invpcid']),
  x2apic: at(1, 'ecx', 21),
  tsc_deadline_timer: at(1, 'ecx', 24),
  aes: at(1, 'ecx', 25),
  rdrand: at(1, 'ecx', 30),
  hypervisor: at(1, 'ecx', 31),
  fsgsbase: at(7, 'ebx', 0),
  avx2: at(7, 'ebx', 5),
  smep: at(7, 'ebx', 7),
  erms: at(7, 'ebx', 9),
  invpcid: at(7, 'ebx', 10),
  rtm: at(7, 'ebx', 11),
  avx512f: at(7, 'ebx', 16, ['avx512dq', 'avx512ifma', 'avx512cd', 'avx512bw', 'avx512vl', 'avx512vbmi']),
  avx512dq: at(7, 'ebx', 17),
  rdseed: at(7, 'ebx', 18),
  smap: at(7, 'ebx', 20),
  avx512ifma: at(7, 'ebx', 21),
  avx512cd: at(7, 'ebx', 28),
  sha_ni: at(7, 'ebx', 29),
  avx512bw: at(7, 'ebx', 30),
  avx512vl: at(7, 'ebx', 31),
  avx512vbmi: at(7, 'ecx', 1),
  umip: at(7, 'ecx', 2),
  pku: at(7, 'ecx', 3, ['ospke']),
  ospke: at(7, 'ecx', 4),
  vaes: at(7, 'ecx', 9),
  vpclmulqdq: at(7, 'ecx', 10),
  la57: at(7, 'ecx', 16),
  rdpid: at(7, 'ecx', 22),
  avx_vnni: { leaf: 7, subleaf: 1, register: 'eax', bit: 4 },
  xsaveopt: { leaf: 0xd, subleaf: 1, register: 'eax', bit: 0 },
  xsavec: { leaf: 0xd, subleaf: 1, register: 'eax', bit: 1 },
  xgetbv1: { leaf: 0xd, subleaf: 1, register: 'eax', bit: 2 },
  xsaves: { leaf: 0xd, subleaf: 1, register: 'eax', bit: 3 },
  xop: at(0x80000001, 'ecx', 11),
  fma4: at(0x80000001, 'ecx', 16),
  pdpe1gb: at(0x80000001, 'edx', 26),
  rdtscp: at(0x80000001, 'edx', 27),
};

export const FEATURE_NAMES: readonly string[] = Object.keys(FEATURES);

/** The table without the named features and all that depend on them. */
export function withoutFeatures(entries: readonly CpuidEntry[], names: readonly string[]): CpuidEntry[] {
  const gone = new Set<string>();
  const take = (name: string) => {
    if (gone.has(name)) return;
    gone.add(name);
    for (const each of FEATURES[name].carries ?? []) take(each);
  };
  for (const name of names) take(name);
  const out = entries.map((entry) => ({ ...entry }));
  for (const name of gone) {
    const { leaf, subleaf, register, bit } = FEATURES[name];
    const entry = out.find((each) => each.function === leaf && each.index === subleaf);
    if (entry) entry[register] = (entry[register] & ~(1 << bit)) >>> 0;
  }
  // Without XSAVE the leaf that sizes its area says nothing.
  return gone.has('xsave') ? out.filter((entry) => entry.function !== 0xd) : out;
}
