import { KVM_EXIT, KVM_EXIT_IO_OUT, kvm_run } from '../ffi/kvm/common.ts';

const at = kvm_run.offsets;

/**
 * One KVM exit, decoded from the raw kvm_run page. A vCPU thread keeps one and fills it again for each
 * exit, so that the hot path allocates nothing. Which fields mean something depends on `kind`.
 */
export interface Exit {
  /** `io` and `mmio` are bus accesses; `other` is everything that the machine thread judges by `reason`. */
  kind: 'io' | 'mmio' | 'hlt' | 'intr' | 'other';
  /** KVM_EXIT_*. */
  reason: number;
  isWrite: boolean;
  /** Port number or guest-physical address. */
  address: number;
  /** Bytes of one element: 1, 2, 4 for ports; 1 to 8 for memory. */
  size: number;
  /** Elements: more than one for `rep ins` and `rep outs`. */
  count: number;
  /** Where the data stands in the kvm_run mapping, in bytes. */
  dataOffset: number;
}

export const newExit = (): Exit => ({
  kind: 'other',
  reason: 0,
  isWrite: false,
  address: 0,
  size: 0,
  count: 0,
  dataOffset: 0,
});

/** Decodes the exit that KVM_RUN left in `run` into `exit`. */
export function decodeExit(run: DataView, exit: Exit): Exit {
  const reason = run.getUint32(at.exit_reason, true);
  exit.reason = reason;
  switch (reason) {
    case KVM_EXIT.IO:
      exit.kind = 'io';
      exit.isWrite = run.getUint8(at['io.direction']) === KVM_EXIT_IO_OUT;
      exit.size = run.getUint8(at['io.size']);
      exit.address = run.getUint16(at['io.port'], true);
      exit.count = run.getUint32(at['io.count'], true);
      // A u64, but an offset inside the mapping: the low half holds it.
      exit.dataOffset = run.getUint32(at['io.data_offset'], true);
      break;
    case KVM_EXIT.MMIO:
      exit.kind = 'mmio';
      exit.isWrite = run.getUint8(at['mmio.is_write']) !== 0;
      exit.size = run.getUint32(at['mmio.len'], true);
      exit.address =
        run.getUint32(at['mmio.phys_addr'], true) + run.getUint32(at['mmio.phys_addr'] + 4, true) * 0x1_0000_0000;
      exit.count = 1;
      exit.dataOffset = at['mmio.data'];
      break;
    case KVM_EXIT.HLT:
      exit.kind = 'hlt';
      break;
    case KVM_EXIT.INTR:
      exit.kind = 'intr';
      break;
    default:
      exit.kind = 'other';
  }
  return exit;
}

const REASON_NAME = new Map(Object.entries(KVM_EXIT).map(([name, value]) => [value as number, name]));

/** `IO`, `MMIO`, …: the header's name without KVM_EXIT_, or the number. */
export const exitName = (reason: number): string => REASON_NAME.get(reason) ?? `reason ${reason}`;

/** Why a vCPU cannot go on, in words, from the exit that its kvm_run page holds. */
export function describeFatalExit(run: DataView): string {
  const reason = run.getUint32(at.exit_reason, true);
  if (reason === KVM_EXIT.FAIL_ENTRY) {
    const hardware = run.getBigUint64(at['fail_entry.hardware_entry_failure_reason'], true);
    return `the processor refused to enter the guest (hardware reason 0x${hardware.toString(16)})`;
  }
  if (reason === KVM_EXIT.INTERNAL_ERROR) {
    const suberror = run.getUint32(at['internal.suberror'], true);
    const ndata = Math.min(run.getUint32(at['internal.ndata'], true), 16);
    const name = ['', 'emulation failure', 'simultaneous exceptions', 'delivery of an event', 'unexpected exit'][
      suberror
    ];
    let text = `KVM reported an internal error (${name || `suberror ${suberror}`})`;
    const hasBytes = (run.getBigUint64(at['emulation_failure.flags'], true) & 1n) !== 0n;
    if (suberror === 1 && ndata >= 3 && hasBytes) {
      const length = Math.min(run.getUint8(at['emulation_failure.insn_size']), 15);
      const bytes = Array.from({ length }, (_, i) => run.getUint8(at['emulation_failure.insn_bytes'] + i));
      text += `: it cannot emulate the instruction ${bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(' ')}`;
    }
    return text;
  }
  if (reason === KVM_EXIT.SHUTDOWN) return 'the guest triple-faulted';
  if (reason === KVM_EXIT.UNKNOWN) {
    return `KVM gave an unknown exit (hardware reason 0x${run.getBigUint64(at['hw.hardware_exit_reason'], true).toString(16)})`;
  }
  return `KVM exit ${exitName(reason)}, which this machine does not handle`;
}
