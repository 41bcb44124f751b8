/** linux/kvm.h and asm/kvm.h for x86-64. Names and numbers are the headers'. */
import { IO, IOR, IOW, IOWR } from '../ioctl.ts';
import { array, at, struct } from '../struct.ts';
import { KVMIO } from './common.ts';

export const kvm_regs = struct('kvm_regs', {
  rax: 'u64',
  rbx: 'u64',
  rcx: 'u64',
  rdx: 'u64',
  rsi: 'u64',
  rdi: 'u64',
  rsp: 'u64',
  rbp: 'u64',
  r8: 'u64',
  r9: 'u64',
  r10: 'u64',
  r11: 'u64',
  r12: 'u64',
  r13: 'u64',
  r14: 'u64',
  r15: 'u64',
  rip: 'u64',
  rflags: 'u64',
});

export const kvm_segment = struct('kvm_segment', {
  base: 'u64',
  limit: 'u32',
  selector: 'u16',
  type: 'u8',
  present: 'u8',
  dpl: 'u8',
  db: 'u8',
  s: 'u8',
  l: 'u8',
  g: 'u8',
  avl: 'u8',
  unusable: 'u8',
  padding: 'u8',
});

export const kvm_dtable = struct('kvm_dtable', { base: 'u64', limit: 'u16', padding: array('u16', 3) });

export const kvm_sregs = struct('kvm_sregs', {
  cs: kvm_segment,
  ds: kvm_segment,
  es: kvm_segment,
  fs: kvm_segment,
  gs: kvm_segment,
  ss: kvm_segment,
  tr: kvm_segment,
  ldt: kvm_segment,
  gdt: kvm_dtable,
  idt: kvm_dtable,
  cr0: 'u64',
  cr2: 'u64',
  cr3: 'u64',
  cr4: 'u64',
  cr8: 'u64',
  efer: 'u64',
  apic_base: 'u64',
  interrupt_bitmap: array('u64', 4),
});

export const kvm_fpu = struct('kvm_fpu', {
  fpr: array('u64', 16),
  fcw: 'u16',
  fsw: 'u16',
  ftwx: 'u8',
  pad1: 'u8',
  last_opcode: 'u16',
  last_ip: 'u64',
  last_dp: 'u64',
  xmm: array('u64', 32),
  mxcsr: 'u32',
  pad2: 'u32',
});

export const kvm_msr_entry = struct('kvm_msr_entry', { index: 'u32', reserved: 'u32', data: 'u64' });
/** Header; `kvm_msr_entry` elements follow. */
export const kvm_msrs = struct('kvm_msrs', { nmsrs: 'u32', pad: 'u32' });
export const kvm_msr_list = struct('kvm_msr_list', { nmsrs: 'u32' });

export const kvm_cpuid_entry2 = struct('kvm_cpuid_entry2', {
  function: 'u32',
  index: 'u32',
  flags: 'u32',
  eax: 'u32',
  ebx: 'u32',
  ecx: 'u32',
  edx: 'u32',
  padding: array('u32', 3),
});
/** Header; `kvm_cpuid_entry2` elements follow. */
export const kvm_cpuid2 = struct('kvm_cpuid2', { nent: 'u32', padding: 'u32' });
export const KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1 << 0;

export const kvm_pit_config = struct('kvm_pit_config', { flags: 'u32', pad: array('u32', 15) });
export const KVM_PIT_SPEAKER_DUMMY = 1;
/** Channel 0 raises no interrupt: an HPET does in its place. */
export const KVM_PIT_FLAGS_HPET_LEGACY = 1;

export const kvm_lapic_state = struct('kvm_lapic_state', { regs: array('u8', 0x400) });

export const kvm_irqchip = struct('kvm_irqchip', { chip_id: 'u32', pad: 'u32', chip: array('u8', 512) });
export const KVM_IRQCHIP_PIC_MASTER = 0;
export const KVM_IRQCHIP_PIC_SLAVE = 1;
export const KVM_IRQCHIP_IOAPIC = 2;

export const kvm_pit_channel_state = struct('kvm_pit_channel_state', {
  count: 'u32',
  latched_count: 'u16',
  count_latched: 'u8',
  status_latched: 'u8',
  status: 'u8',
  read_state: 'u8',
  write_state: 'u8',
  write_latch: 'u8',
  rw_mode: 'u8',
  mode: 'u8',
  bcd: 'u8',
  gate: 'u8',
  count_load_time: 's64',
});
export const kvm_pit_state2 = struct('kvm_pit_state2', {
  channels: array(kvm_pit_channel_state, 3),
  flags: 'u32',
  reserved: array('u32', 9),
});

export const kvm_debugregs = struct('kvm_debugregs', {
  db: array('u64', 4),
  dr6: 'u64',
  dr7: 'u64',
  flags: 'u64',
  reserved: array('u64', 9),
});

export const kvm_vcpu_events = struct(
  'kvm_vcpu_events',
  {
    'exception.injected': 'u8',
    'exception.nr': 'u8',
    'exception.has_error_code': 'u8',
    'exception.pending': 'u8',
    'exception.error_code': 'u32',
    'interrupt.injected': 'u8',
    'interrupt.nr': 'u8',
    'interrupt.soft': 'u8',
    'interrupt.shadow': 'u8',
    'nmi.injected': 'u8',
    'nmi.pending': 'u8',
    'nmi.masked': 'u8',
    'nmi.pad': 'u8',
    sipi_vector: 'u32',
    flags: 'u32',
    'smi.smm': 'u8',
    'smi.pending': 'u8',
    'smi.smm_inside_nmi': 'u8',
    'smi.latched_init': 'u8',
  },
  64,
);

export const kvm_xsave = struct('kvm_xsave', { region: array('u32', 1024) });
export const kvm_xcr = struct('kvm_xcr', { xcr: 'u32', reserved: 'u32', value: 'u64' });
export const kvm_xcrs = struct('kvm_xcrs', {
  nr_xcrs: 'u32',
  flags: 'u32',
  xcrs: array(kvm_xcr, 16),
  padding: array('u64', 16),
});

export const kvm_translation = struct('kvm_translation', {
  linear_address: 'u64',
  physical_address: 'u64',
  valid: 'u8',
  writeable: 'u8',
  usermode: 'u8',
  pad: array('u8', 5),
});

export const kvm_clock_data = struct('kvm_clock_data', {
  clock: 'u64',
  flags: 'u32',
  pad0: 'u32',
  realtime: 'u64',
  host_tsc: 'u64',
  pad: array('u32', 4),
});

/** Only the fixed part; the debug registers follow at `arch.debugreg`. */
export const kvm_guest_debug = struct('kvm_guest_debug', {
  control: 'u32',
  pad: 'u32',
  'arch.debugreg': at(8, array('u64', 8)),
});
export const KVM_GUESTDBG_ENABLE = 1;
export const KVM_GUESTDBG_SINGLESTEP = 2;
export const KVM_GUESTDBG_USE_SW_BP = 0x10000;
export const KVM_GUESTDBG_USE_HW_BP = 0x20000;
export const KVM_GUESTDBG_INJECT_DB = 0x40000;
export const KVM_GUESTDBG_INJECT_BP = 0x80000;
/** No interrupt is delivered while a vCPU is stepped. */
export const KVM_GUESTDBG_BLOCKIRQ = 0x100000;

export const KVM_GET_MSR_INDEX_LIST = IOWR(KVMIO, 0x02, kvm_msr_list.size);
export const KVM_GET_SUPPORTED_CPUID = IOWR(KVMIO, 0x05, kvm_cpuid2.size);
export const KVM_SET_TSS_ADDR = IO(KVMIO, 0x47);
export const KVM_SET_IDENTITY_MAP_ADDR = IOW(KVMIO, 0x48, 8);
export const KVM_GET_IRQCHIP = IOWR(KVMIO, 0x62, kvm_irqchip.size);
export const KVM_SET_IRQCHIP = IOR(KVMIO, 0x63, kvm_irqchip.size);
export const KVM_CREATE_PIT2 = IOW(KVMIO, 0x77, kvm_pit_config.size);
export const KVM_SET_CLOCK = IOW(KVMIO, 0x7b, kvm_clock_data.size);
export const KVM_GET_CLOCK = IOR(KVMIO, 0x7c, kvm_clock_data.size);
export const KVM_GET_REGS = IOR(KVMIO, 0x81, kvm_regs.size);
export const KVM_SET_REGS = IOW(KVMIO, 0x82, kvm_regs.size);
export const KVM_GET_SREGS = IOR(KVMIO, 0x83, kvm_sregs.size);
export const KVM_SET_SREGS = IOW(KVMIO, 0x84, kvm_sregs.size);
export const KVM_TRANSLATE = IOWR(KVMIO, 0x85, kvm_translation.size);
export const KVM_GET_MSRS = IOWR(KVMIO, 0x88, kvm_msrs.size);
export const KVM_SET_MSRS = IOW(KVMIO, 0x89, kvm_msrs.size);
export const KVM_GET_FPU = IOR(KVMIO, 0x8c, kvm_fpu.size);
export const KVM_SET_FPU = IOW(KVMIO, 0x8d, kvm_fpu.size);
export const KVM_GET_LAPIC = IOR(KVMIO, 0x8e, kvm_lapic_state.size);
export const KVM_SET_LAPIC = IOW(KVMIO, 0x8f, kvm_lapic_state.size);
export const KVM_SET_CPUID2 = IOW(KVMIO, 0x90, kvm_cpuid2.size);
export const KVM_NMI = IO(KVMIO, 0x9a);
export const KVM_SET_GUEST_DEBUG = IOW(KVMIO, 0x9b, kvm_guest_debug.size);
export const KVM_GET_VCPU_EVENTS = IOR(KVMIO, 0x9f, kvm_vcpu_events.size);
export const KVM_SET_VCPU_EVENTS = IOW(KVMIO, 0xa0, kvm_vcpu_events.size);
export const KVM_GET_PIT2 = IOR(KVMIO, 0x9f, kvm_pit_state2.size);
export const KVM_SET_PIT2 = IOW(KVMIO, 0xa0, kvm_pit_state2.size);
export const KVM_GET_DEBUGREGS = IOR(KVMIO, 0xa1, 128);
export const KVM_SET_DEBUGREGS = IOW(KVMIO, 0xa2, 128);
export const KVM_GET_TSC_KHZ = IO(KVMIO, 0xa3);
export const KVM_GET_XSAVE = IOR(KVMIO, 0xa4, kvm_xsave.size);
export const KVM_SET_XSAVE = IOW(KVMIO, 0xa5, kvm_xsave.size);
export const KVM_GET_XCRS = IOR(KVMIO, 0xa6, kvm_xcrs.size);
export const KVM_SET_XCRS = IOW(KVMIO, 0xa7, kvm_xcrs.size);

export const KVM_X2APIC_API_USE_32BIT_IDS = 1n << 0n;
export const KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK = 1n << 1n;

export const KVM_CPUID_SIGNATURE = 0x40000000;
export const KVM_CPUID_FEATURES = 0x40000001;

export const x86Layouts = [
  kvm_regs,
  kvm_segment,
  kvm_dtable,
  kvm_sregs,
  kvm_fpu,
  kvm_msr_entry,
  kvm_msrs,
  kvm_msr_list,
  kvm_cpuid_entry2,
  kvm_cpuid2,
  kvm_pit_config,
  kvm_lapic_state,
  kvm_irqchip,
  kvm_pit_channel_state,
  kvm_pit_state2,
  kvm_debugregs,
  kvm_vcpu_events,
  kvm_xsave,
  kvm_xcr,
  kvm_xcrs,
  kvm_translation,
  kvm_clock_data,
  kvm_guest_debug,
];

export const x86Numbers = {
  KVM_GET_MSR_INDEX_LIST,
  KVM_GET_SUPPORTED_CPUID,
  KVM_SET_TSS_ADDR,
  KVM_SET_IDENTITY_MAP_ADDR,
  KVM_GET_IRQCHIP,
  KVM_SET_IRQCHIP,
  KVM_CREATE_PIT2,
  KVM_SET_CLOCK,
  KVM_GET_CLOCK,
  KVM_GET_REGS,
  KVM_SET_REGS,
  KVM_GET_SREGS,
  KVM_SET_SREGS,
  KVM_TRANSLATE,
  KVM_GET_MSRS,
  KVM_SET_MSRS,
  KVM_GET_FPU,
  KVM_SET_FPU,
  KVM_GET_LAPIC,
  KVM_SET_LAPIC,
  KVM_SET_CPUID2,
  KVM_NMI,
  KVM_SET_GUEST_DEBUG,
  KVM_GET_VCPU_EVENTS,
  KVM_SET_VCPU_EVENTS,
  KVM_GET_PIT2,
  KVM_SET_PIT2,
  KVM_GET_DEBUGREGS,
  KVM_SET_DEBUGREGS,
  KVM_GET_TSC_KHZ,
  KVM_GET_XSAVE,
  KVM_SET_XSAVE,
  KVM_GET_XCRS,
  KVM_SET_XCRS,
  KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
  KVM_PIT_SPEAKER_DUMMY,
  KVM_IRQCHIP_PIC_MASTER,
  KVM_IRQCHIP_PIC_SLAVE,
  KVM_IRQCHIP_IOAPIC,
  KVM_GUESTDBG_ENABLE,
  KVM_GUESTDBG_SINGLESTEP,
  KVM_GUESTDBG_USE_SW_BP,
  KVM_GUESTDBG_USE_HW_BP,
  KVM_GUESTDBG_INJECT_DB,
  KVM_GUESTDBG_INJECT_BP,
  KVM_GUESTDBG_BLOCKIRQ,
};
