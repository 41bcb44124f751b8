/** linux/kvm.h: what all architectures share. Names and numbers are the header's. */
import { IO, IOR, IOW } from '../ioctl.ts';
import { array, at, struct } from '../struct.ts';

export const KVMIO = 0xae;
export const KVM_API_VERSION = 12;

export const kvm_userspace_memory_region = struct('kvm_userspace_memory_region', {
  slot: 'u32',
  flags: 'u32',
  guest_phys_addr: 'u64',
  memory_size: 'u64',
  userspace_addr: 'u64',
});
export const KVM_MEM_LOG_DIRTY_PAGES = 1 << 0;
export const KVM_MEM_READONLY = 1 << 1;

/** `dirty_bitmap` is the address of one bit a page, in whole 64-bit words. */
export const kvm_dirty_log = struct('kvm_dirty_log', { slot: 'u32', padding1: 'u32', dirty_bitmap: 'u64' });

export const kvm_irq_level = struct('kvm_irq_level', { irq: 'u32', level: 'u32' });

export const kvm_irqfd = struct('kvm_irqfd', {
  fd: 'u32',
  gsi: 'u32',
  flags: 'u32',
  resamplefd: 'u32',
  pad: array('u8', 16),
});

export const kvm_ioeventfd = struct('kvm_ioeventfd', {
  datamatch: 'u64',
  addr: 'u64',
  len: 'u32',
  fd: 's32',
  flags: 'u32',
  pad: array('u8', 36),
});

/** The header's union holds the addresses of a route's other end; `irqchip` and `msi` share its first words. */
export const kvm_irq_routing_entry = struct('kvm_irq_routing_entry', {
  gsi: 'u32',
  type: 'u32',
  flags: 'u32',
  pad: 'u32',
  u: array('u32', 8),
});
export const KVM_IRQ_ROUTING_IRQCHIP = 1;
export const KVM_IRQ_ROUTING_MSI = 2;
/** `kvm_irq_routing_entry` elements follow it. */
export const kvm_irq_routing = struct('kvm_irq_routing', { nr: 'u32', flags: 'u32' });

export const kvm_msi = struct('kvm_msi', {
  address_lo: 'u32',
  address_hi: 'u32',
  data: 'u32',
  flags: 'u32',
  devid: 'u32',
  pad: array('u8', 12),
});

export const KVM_IOEVENTFD_FLAG_DATAMATCH = 1 << 0;
export const KVM_IOEVENTFD_FLAG_PIO = 1 << 1;
export const KVM_IOEVENTFD_FLAG_DEASSIGN = 1 << 2;
export const KVM_IRQFD_FLAG_DEASSIGN = 1 << 0;

export const kvm_enable_cap = struct('kvm_enable_cap', {
  cap: 'u32',
  flags: 'u32',
  args: array('u64', 4),
  pad: array('u8', 64),
});

export const kvm_mp_state = struct('kvm_mp_state', { mp_state: 'u32' });

/** `padding` is `pio` in the header's anonymous union: 1 marks port addresses. */
export const kvm_coalesced_mmio_zone = struct('kvm_coalesced_mmio_zone', { addr: 'u64', size: 'u32', pio: 'u32' });

export const kvm_coalesced_mmio = struct('kvm_coalesced_mmio', {
  phys_addr: 'u64',
  len: 'u32',
  pio: 'u32',
  data: array('u8', 8),
});

/** Header of the ring page; `kvm_coalesced_mmio` entries follow it. */
export const kvm_coalesced_mmio_ring = struct('kvm_coalesced_mmio_ring', { first: 'u32', last: 'u32' });

export const kvm_run = struct(
  'kvm_run',
  {
    request_interrupt_window: 'u8',
    immediate_exit: 'u8',
    exit_reason: at(8, 'u32'),
    ready_for_interrupt_injection: 'u8',
    if_flag: 'u8',
    flags: 'u16',
    cr8: 'u64',
    apic_base: 'u64',
    'hw.hardware_exit_reason': at(32, 'u64'),
    'fail_entry.hardware_entry_failure_reason': at(32, 'u64'),
    'fail_entry.cpu': at(40, 'u32'),
    'io.direction': at(32, 'u8'),
    'io.size': at(33, 'u8'),
    'io.port': at(34, 'u16'),
    'io.count': at(36, 'u32'),
    'io.data_offset': at(40, 'u64'),
    'mmio.phys_addr': at(32, 'u64'),
    'mmio.data': at(40, array('u8', 8)),
    'mmio.len': at(48, 'u32'),
    'mmio.is_write': at(52, 'u8'),
    'debug.arch.exception': at(32, 'u32'),
    'debug.arch.pc': at(40, 'u64'),
    'debug.arch.dr6': at(48, 'u64'),
    'debug.arch.dr7': at(56, 'u64'),
    'hypercall.nr': at(32, 'u64'),
    'hypercall.args': at(40, array('u64', 6)),
    'hypercall.ret': at(88, 'u64'),
    'internal.suberror': at(32, 'u32'),
    'internal.ndata': at(36, 'u32'),
    'internal.data': at(40, array('u64', 16)),
    'emulation_failure.flags': at(40, 'u64'),
    'emulation_failure.insn_size': at(48, 'u8'),
    'emulation_failure.insn_bytes': at(49, array('u8', 15)),
    'system_event.type': at(32, 'u32'),
    'system_event.ndata': at(36, 'u32'),
    'system_event.data': at(40, array('u64', 16)),
    'eoi.vector': at(32, 'u8'),
    'msr.error': at(32, 'u8'),
    'msr.reason': at(40, 'u32'),
    'msr.index': at(44, 'u32'),
    'msr.data': at(48, 'u64'),
    kvm_valid_regs: at(288, 'u64'),
    kvm_dirty_regs: 'u64',
  },
  2352,
);

export const KVM_EXIT_IO_IN = 0;
export const KVM_EXIT_IO_OUT = 1;

/** Exit reasons by number; the names are the header's without KVM_EXIT_. */
export const KVM_EXIT = {
  UNKNOWN: 0,
  EXCEPTION: 1,
  IO: 2,
  HYPERCALL: 3,
  DEBUG: 4,
  HLT: 5,
  MMIO: 6,
  IRQ_WINDOW_OPEN: 7,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  SET_TPR: 11,
  TPR_ACCESS: 12,
  NMI: 16,
  INTERNAL_ERROR: 17,
  SYSTEM_EVENT: 24,
  IOAPIC_EOI: 26,
  HYPERV: 27,
  ARM_NISV: 28,
  X86_RDMSR: 29,
  X86_WRMSR: 30,
  DIRTY_RING_FULL: 31,
  X86_BUS_LOCK: 33,
  NOTIFY: 37,
} as const;

export const KVM_INTERNAL_ERROR_EMULATION = 1;

export const KVM_MP_STATE_RUNNABLE = 0;
export const KVM_MP_STATE_UNINITIALIZED = 1;
export const KVM_MP_STATE_HALTED = 3;

export const KVM_CAP = {
  IRQCHIP: 0,
  HLT: 1,
  USER_MEMORY: 3,
  EXT_CPUID: 7,
  NR_VCPUS: 9,
  NR_MEMSLOTS: 10,
  MP_STATE: 14,
  COALESCED_MMIO: 15,
  IRQFD: 32,
  IRQ_ROUTING: 25,
  PIT2: 33,
  IOEVENTFD: 36,
  ADJUST_CLOCK: 39,
  INTERNAL_ERROR_DATA: 40,
  MAX_VCPUS: 66,
  TSC_DEADLINE_TIMER: 72,
  KVMCLOCK_CTRL: 76,
  SIGNAL_MSI: 77,
  IOEVENTFD_ANY_LENGTH: 122,
  IMMEDIATE_EXIT: 136,
  MAX_VCPU_ID: 128,
  X2APIC_API: 129,
  COALESCED_PIO: 162,
  SET_GUEST_DEBUG2: 195,
} as const;

export const KVM_GET_API_VERSION = IO(KVMIO, 0x00);
export const KVM_CREATE_VM = IO(KVMIO, 0x01);
export const KVM_CHECK_EXTENSION = IO(KVMIO, 0x03);
export const KVM_GET_VCPU_MMAP_SIZE = IO(KVMIO, 0x04);
export const KVM_CREATE_VCPU = IO(KVMIO, 0x41);
export const KVM_GET_DIRTY_LOG = IOW(KVMIO, 0x42, kvm_dirty_log.size);
export const KVM_SET_USER_MEMORY_REGION = IOW(KVMIO, 0x46, kvm_userspace_memory_region.size);
export const KVM_CREATE_IRQCHIP = IO(KVMIO, 0x60);
export const KVM_IRQ_LINE = IOW(KVMIO, 0x61, kvm_irq_level.size);
export const KVM_REGISTER_COALESCED_MMIO = IOW(KVMIO, 0x67, kvm_coalesced_mmio_zone.size);
export const KVM_UNREGISTER_COALESCED_MMIO = IOW(KVMIO, 0x68, kvm_coalesced_mmio_zone.size);
export const KVM_SET_GSI_ROUTING = IOW(KVMIO, 0x6a, kvm_irq_routing.size);
export const KVM_SIGNAL_MSI = IOW(KVMIO, 0xa5, kvm_msi.size);
export const KVM_IRQFD = IOW(KVMIO, 0x76, kvm_irqfd.size);
export const KVM_IOEVENTFD = IOW(KVMIO, 0x79, kvm_ioeventfd.size);
export const KVM_RUN = IO(KVMIO, 0x80);
export const KVM_GET_MP_STATE = IOR(KVMIO, 0x98, kvm_mp_state.size);
export const KVM_SET_MP_STATE = IOW(KVMIO, 0x99, kvm_mp_state.size);
export const KVM_ENABLE_CAP = IOW(KVMIO, 0xa3, kvm_enable_cap.size);
export const KVM_KVMCLOCK_CTRL = IO(KVMIO, 0xad);

/** Page of a vCPU's mapping that holds the coalesced ring (x86: 2). */
export const KVM_COALESCED_MMIO_PAGE_OFFSET = 2;

export const commonLayouts = [
  kvm_userspace_memory_region,
  kvm_dirty_log,
  kvm_irq_level,
  kvm_irqfd,
  kvm_ioeventfd,
  kvm_irq_routing_entry,
  kvm_irq_routing,
  kvm_msi,
  kvm_enable_cap,
  kvm_mp_state,
  kvm_coalesced_mmio_zone,
  kvm_coalesced_mmio,
  kvm_coalesced_mmio_ring,
  kvm_run,
];

export const commonNumbers = {
  KVM_GET_API_VERSION,
  KVM_CREATE_VM,
  KVM_CHECK_EXTENSION,
  KVM_GET_VCPU_MMAP_SIZE,
  KVM_CREATE_VCPU,
  KVM_GET_DIRTY_LOG,
  KVM_SET_USER_MEMORY_REGION,
  KVM_CREATE_IRQCHIP,
  KVM_IRQ_LINE,
  KVM_REGISTER_COALESCED_MMIO,
  KVM_UNREGISTER_COALESCED_MMIO,
  KVM_SET_GSI_ROUTING,
  KVM_SIGNAL_MSI,
  KVM_IRQ_ROUTING_IRQCHIP,
  KVM_IRQ_ROUTING_MSI,
  KVM_IOEVENTFD_FLAG_DATAMATCH,
  KVM_IOEVENTFD_FLAG_PIO,
  KVM_IOEVENTFD_FLAG_DEASSIGN,
  KVM_IRQFD_FLAG_DEASSIGN,
  KVM_IRQFD,
  KVM_IOEVENTFD,
  KVM_RUN,
  KVM_GET_MP_STATE,
  KVM_SET_MP_STATE,
  KVM_ENABLE_CAP,
  KVM_KVMCLOCK_CTRL,
  KVM_COALESCED_MMIO_PAGE_OFFSET,
  KVM_MEM_LOG_DIRTY_PAGES,
  KVM_MEM_READONLY,
  KVM_EXIT_IO_IN,
  KVM_EXIT_IO_OUT,
  KVM_INTERNAL_ERROR_EMULATION,
  KVM_MP_STATE_RUNNABLE,
  KVM_MP_STATE_UNINITIALIZED,
  KVM_MP_STATE_HALTED,
  KVM_API_VERSION,
  KVMIO,
  ...Object.fromEntries(Object.entries(KVM_EXIT).map(([name, value]) => [`KVM_EXIT_${name}`, value])),
  ...Object.fromEntries(Object.entries(KVM_CAP).map(([name, value]) => [`KVM_CAP_${name}`, value])),
};
