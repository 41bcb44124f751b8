/** What interrupt controllers of a PC hold, as plain data. Names are those of Intel's manuals. */

export const DELIVERY_MODES = ['fixed', 'lowest', 'SMI', '3', 'NMI', 'INIT', 'SIPI', 'ExtINT'] as const;
export type DeliveryMode = (typeof DELIVERY_MODES)[number];

/** What a pin of the I/O APIC and an entry of a local vector table have in common. */
export interface VectorEntry {
  /** As it stands in the register, in hexadecimal. */
  readonly raw: string;
  readonly vector: number;
  readonly mode: DeliveryMode;
  readonly masked: boolean;
  readonly level: boolean;
  readonly activeLow: boolean;
  readonly remoteIrr: boolean;
}

export interface IoapicPin extends VectorEntry {
  readonly pin: number;
  /** An APIC id, or a set of them where the destination is logical. */
  readonly destination: number;
  readonly logical: boolean;
  /** The line is raised. */
  readonly pending: boolean;
}

/** One of the two 8259A; masks have a bit for each line. */
export interface PicReport {
  readonly name: 'master' | 'slave';
  readonly irr: number;
  readonly imr: number;
  readonly isr: number;
  /** Line of the highest priority. */
  readonly highest: number;
  /** Vector of line 0. */
  readonly base: number;
  /** Lines that are level-triggered. */
  readonly elcr: number;
  readonly specialFullyNested: boolean;
}

export interface LapicReport {
  readonly vcpu: number;
  readonly apicId: number;
  readonly x2apic: boolean;
  /** By software, in the spurious-interrupt register. */
  readonly enabled: boolean;
  readonly taskPriority: number;
  readonly processorPriority: number;
  readonly logicalDestination: number;
  readonly destinationFormat: number;
  readonly spurious: number;
  readonly errors: number;
  /** Low and high half. */
  readonly icr: readonly [number, number];
  readonly lvt: readonly (VectorEntry & { readonly name: string })[];
  readonly timer: {
    readonly mode: 'one-shot' | 'periodic' | 'TSC-deadline' | 'reserved';
    /** What the bus clock is divided by. */
    readonly divide: number;
    readonly initial: number;
    readonly current: number;
  };
  /** Vectors, in ascending order. */
  readonly inService: readonly number[];
  readonly requested: readonly number[];
  /** Of those, which came from level-triggered lines. */
  readonly levels: readonly number[];
}

export interface InterruptReport {
  readonly ioapic: { readonly id: number; readonly pins: readonly IoapicPin[] };
  readonly pics: readonly PicReport[];
  readonly lapics: readonly LapicReport[];
}
