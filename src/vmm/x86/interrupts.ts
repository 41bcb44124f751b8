/** Reads KVM's interrupt controllers (linux/kvm.h: kvm_pic_state, kvm_ioapic_state, kvm_lapic_state). */
import {
  DELIVERY_MODES,
  type InterruptReport,
  type IoapicPin,
  type LapicReport,
  type PicReport,
  type VectorEntry,
} from '../../client/interrupts.ts';

const IOAPIC_PINS = 24;
/** Offsets in kvm_ioapic_state. */
const IOAPIC = { ID: 12, IRR: 16, REDIRECTION: 24 } as const;
/** Offsets in kvm_pic_state, whose fields are bytes. */
const PIC = { IRR: 1, IMR: 2, ISR: 3, PRIORITY: 4, BASE: 5, SFNM: 12, ELCR: 14 } as const;
/** Offsets of the local APIC's registers (Intel SDM volume 3, table 11-1). */
const APIC = {
  ...{ TPR: 0x80, PPR: 0xa0, LDR: 0xd0, DFR: 0xe0, SVR: 0xf0, ISR: 0x100, TMR: 0x180, IRR: 0x200, ESR: 0x280 },
  ...{ ICR: 0x300, ICR2: 0x310, TIMER: 0x320, TMICT: 0x380, TMCCT: 0x390, TDCR: 0x3e0 },
} as const;
const LVT = [
  ['LINT0', 0x350],
  ['LINT1', 0x360],
  ['performance', 0x340],
  ['error', 0x370],
  ['thermal', 0x330],
  ['timer', APIC.TIMER],
] as const;
const SVR_ENABLED = 1 << 8;
const APIC_BASE_X2APIC = 1n << 10n;
const TIMER_MODES = ['one-shot', 'periodic', 'TSC-deadline', 'reserved'] as const;

/** Bits 0 to 16 are the same in a redirection entry (82093AA, 3.2.4) and in a local vector (SDM volume 3, figure 11-8). */
function vectorEntry(low: number, raw: string): VectorEntry {
  return {
    ...{ raw, vector: low & 0xff, mode: DELIVERY_MODES[(low >>> 8) & 7] },
    masked: (low & (1 << 16)) !== 0,
    level: (low & (1 << 15)) !== 0,
    activeLow: (low & (1 << 13)) !== 0,
    remoteIrr: (low & (1 << 14)) !== 0,
  };
}

/** @param state kvm_ioapic_state */
export function readIoapic(state: DataView): InterruptReport['ioapic'] {
  const irr = state.getUint32(IOAPIC.IRR, true);
  const pins = Array.from({ length: IOAPIC_PINS }, (_, pin): IoapicPin => {
    const entry = state.getBigUint64(IOAPIC.REDIRECTION + 8 * pin, true);
    const low = Number(entry & 0xffff_ffffn);
    return {
      pin,
      ...vectorEntry(low, `0x${entry.toString(16).padStart(16, '0')}`),
      destination: Number(entry >> 56n),
      logical: (low & (1 << 11)) !== 0,
      pending: (irr & (1 << pin)) !== 0,
    };
  });
  return { id: state.getUint32(IOAPIC.ID, true) & 0xf, pins };
}

/** @param state kvm_pic_state */
export function readPic(state: DataView, name: PicReport['name']): PicReport {
  const byte = (at: number) => state.getUint8(at);
  return {
    ...{ name, irr: byte(PIC.IRR), imr: byte(PIC.IMR), isr: byte(PIC.ISR) },
    ...{ highest: byte(PIC.PRIORITY) & 7, base: byte(PIC.BASE), elcr: byte(PIC.ELCR) },
    specialFullyNested: byte(PIC.SFNM) !== 0,
  };
}

/** Vectors whose bits are set in eight registers of 32 bits, each 16 bytes behind the one before. */
function vectorsIn(state: DataView, at: number): number[] {
  const found: number[] = [];
  for (let vector = 0; vector < 256; vector++) {
    const word = state.getUint32(at + 0x10 * (vector >>> 5), true);
    if (word & (1 << (vector & 31))) found.push(vector);
  }
  return found;
}

/** @param state kvm_lapic_state @param apicBase the MSR */
export function readLapic(state: DataView, vcpu: number, apicId: number, apicBase: bigint): LapicReport {
  const word = (at: number) => state.getUint32(at, true);
  const divide = word(APIC.TDCR);
  // Bits 0, 1 and 3: 2, 4, … 128, and then 1 (SDM volume 3, figure 11-10).
  const power = ((((divide & 3) | ((divide >>> 1) & 4)) + 1) & 7) >>> 0;
  return {
    ...{ vcpu, apicId, x2apic: (apicBase & APIC_BASE_X2APIC) !== 0n, enabled: (word(APIC.SVR) & SVR_ENABLED) !== 0 },
    ...{ taskPriority: word(APIC.TPR) & 0xff, processorPriority: word(APIC.PPR) & 0xff },
    ...{ logicalDestination: word(APIC.LDR), destinationFormat: word(APIC.DFR), spurious: word(APIC.SVR) & 0xff },
    ...{ errors: word(APIC.ESR) & 0xff, icr: [word(APIC.ICR), word(APIC.ICR2)] },
    lvt: LVT.map(([name, at]) => {
      const low = word(at);
      const entry = vectorEntry(low, `0x${low.toString(16).padStart(8, '0')}`);
      // The timer and the error interrupt have neither mode nor pin.
      return name === 'timer' || name === 'error'
        ? { ...entry, name, mode: 'fixed', level: false }
        : { ...entry, name };
    }),
    timer: {
      mode: TIMER_MODES[(word(APIC.TIMER) >>> 17) & 3],
      divide: 2 ** power,
      initial: word(APIC.TMICT),
      current: word(APIC.TMCCT),
    },
    inService: vectorsIn(state, APIC.ISR),
    requested: vectorsIn(state, APIC.IRR),
    levels: vectorsIn(state, APIC.TMR),
  };
}
