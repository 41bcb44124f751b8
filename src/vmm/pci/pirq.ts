import type { IrqLine } from '../../devices/device.ts';

/** Which inputs of interrupt controllers a chipset's PIRQs drive: lines from many pins come together in each. */
export class PirqRouter {
  readonly #setIrq: (gsi: number, level: boolean) => void;
  readonly #ownGsi: (pirq: number) => number | undefined;
  /** How many hold each PIRQ high. */
  readonly #asserted: number[];
  /** ISA interrupt that each PIRQ drives now. */
  readonly #isa: (number | undefined)[];

  /**
   * @param count of PIRQs.
   * @param ownGsi the IOAPIC's input that a PIRQ always drives, if it has one.
   */
  constructor(
    count: number,
    setIrq: (gsi: number, level: boolean) => void,
    ownGsi: (pirq: number) => number | undefined = () => undefined,
  ) {
    this.#setIrq = setIrq;
    this.#ownGsi = ownGsi;
    this.#asserted = new Array<number>(count).fill(0);
    this.#isa = new Array<number | undefined>(count).fill(undefined);
  }

  /** A line that holds a PIRQ high, besides others. */
  line(pirq: number): IrqLine {
    let level = false;
    return {
      set: (next) => {
        if (next === level) return;
        level = next;
        const before = this.#asserted[pirq] > 0;
        this.#asserted[pirq] += next ? 1 : -1;
        const high = this.#asserted[pirq] > 0;
        if (high === before) return;
        const own = this.#ownGsi(pirq);
        if (own !== undefined) this.#setIrq(own, high);
        this.#driveIsa(this.#isa[pirq]);
      },
    };
  }

  /** From now on a PIRQ drives this ISA interrupt, or none. */
  route(pirq: number, isa: number | undefined): void {
    const before = this.#isa[pirq];
    if (before === isa) return;
    this.#isa[pirq] = isa;
    this.#driveIsa(before);
    this.#driveIsa(isa);
  }

  #driveIsa(isa: number | undefined): void {
    if (isa === undefined) return;
    this.#setIrq(
      isa,
      this.#asserted.some((count, pirq) => count > 0 && this.#isa[pirq] === isa),
    );
  }
}
