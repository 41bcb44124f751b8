/**
 * A 16550A UART (National Semiconductor PC16550D data sheet): the chip alone. There is no baud timing; bytes go
 * to a ByteChannel as fast as it takes them, and THRE stays clear while it is full.
 *
 * Received bytes stay in the channel for as long as they can, because drivers empty the FIFO unread when they
 * probe or open a port: the FIFO is filled only while the receive interrupt is enabled, a polling driver is given
 * byte after byte, and one that has shown that it uses RTS gets none without it.
 */
import type { ByteChannel, Clock, Device, DeviceState, IrqLine, Region, Timer } from './device.ts';
import { booleanIn, byteIn, bytesIn, requireKind } from './state.ts';

const RBR_THR_DLL = 0;
const IER_DLM = 1;
const IIR_FCR = 2;
const LCR = 3;
const MCR = 4;
const LSR = 5;
const MSR = 6;

const IER_RDI = 0x01;
const IER_THRI = 0x02;
const IER_RLSI = 0x04;
const IER_MSI = 0x08;

const IIR_NO_INT = 0x01;
const IIR_MSI = 0x00;
const IIR_THRI = 0x02;
const IIR_RDI = 0x04;
const IIR_RLSI = 0x06;
const IIR_CTI = 0x0c;
const IIR_FIFO_ENABLED = 0xc0;

const FCR_ENABLE = 0x01;
const FCR_CLEAR_RCVR = 0x02;
const FCR_CLEAR_XMIT = 0x04;
const FCR_TRIGGER = [1, 4, 8, 14];

const LCR_DLAB = 0x80;

const MCR_DTR = 0x01;
const MCR_RTS = 0x02;
const MCR_OUT1 = 0x04;
const MCR_OUT2 = 0x08;
const MCR_LOOP = 0x10;

const LSR_DR = 0x01;
const LSR_OE = 0x02;
const LSR_BI = 0x10;
const LSR_THRE = 0x20;
const LSR_TEMT = 0x40;
const LSR_FIFO_ERROR = 0x80;
const LSR_ERRORS = LSR_OE | LSR_BI;

const MSR_CTS = 0x10;
const MSR_DSR = 0x20;
const MSR_RI = 0x40;
const MSR_DCD = 0x80;
/** The other end is always there and ready. */
const MSR_CONNECTED = MSR_CTS | MSR_DSR | MSR_DCD;

const FIFO_SIZE = 16;
/** Marks a character in the receiver as a break. */
const BREAK = 0x100;
/**
 * Written bytes that are kept while the channel is full. A guest may have seen THRE before it was cleared: a page
 * of `rep outsb` and what KVM gathered of single writes can be under way.
 */
const MOST_HELD = 8192;
/**
 * Bytes that an interrupt handler may take without a pause. Drivers read for as long as bytes keep coming, with
 * interrupts off; a real line leaves them time between two FIFOs.
 */
const RX_BURST = 64;
/**
 * The pause is a half of the time that the burst took, within these bounds (nanoseconds). Where an access takes
 * milliseconds a burst takes a quarter of a second, and a guest without a pause that counts beside it reports lockups.
 */
const SHORTEST_PAUSE = 50_000n;
const LONGEST_PAUSE = 250_000_000n;
const KIND = 'uart16550';

export interface Uart16550Options {
  readonly name: string;
  readonly irq: IrqLine;
  readonly channel: ByteChannel;
  readonly clock: Clock;
  /** Where vCPU threads look for LSR: they may serve its reads while no error bit is set. */
  readonly shared?: { publish(lsr: number): void };
}

export class Uart16550 implements Device, Region {
  readonly name: string;
  readonly size = 8;
  readonly #irq: IrqLine;
  readonly #channel: ByteChannel;
  readonly #clock: Clock;
  readonly #pause: Timer;
  readonly #shared: { publish(lsr: number): void } | undefined;
  #ier = 0;
  #fcr = 0;
  #lcr = 0;
  #mcr = 0;
  #msr = MSR_CONNECTED;
  #scr = 0;
  #divisor = 12;
  #overrun = false;
  /** The THRE interrupt is an event: set by becoming empty, taken by reading IIR or writing THR. */
  #thri = false;
  #level = false;
  /** The driver set RTS once: from then on RTS tells whether it takes bytes. */
  #usesRts = false;
  readonly #rx: number[] = [];
  /** Bytes that the channel had no room for; while any are here THRE is clear. */
  #tx: number[] = [];
  /** Bytes that the interrupt handler took since the channel was last found empty, or since the last pause. */
  #burst = 0;
  #burstStart = 0n;
  #pausing = false;
  readonly #one = new Uint8Array(1);

  constructor(options: Uart16550Options) {
    this.name = options.name;
    this.#irq = options.irq;
    this.#channel = options.channel;
    this.#clock = options.clock;
    this.#shared = options.shared;
    this.#pause = options.clock.timer(() => {
      this.#endPause();
      this.#fill();
    });
    this.#channel.onReadable = () => this.#fill();
    this.#channel.onWritable = () => this.#drain();
    this.#publish();
  }

  reset(): void {
    this.#ier = 0;
    this.#fcr = 0;
    this.#lcr = 0;
    this.#mcr = 0;
    this.#msr = MSR_CONNECTED;
    this.#scr = 0;
    this.#divisor = 12;
    this.#overrun = false;
    this.#thri = false;
    this.#usesRts = false;
    this.#rx.length = 0;
    this.#tx = [];
    this.#endPause();
    this.#update();
  }

  read(offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.#readByte((offset + i) & 7) << (8 * i);
    return value >>> 0;
  }

  write(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) this.#writeByte((offset + i) & 7, (value >>> (8 * i)) & 0xff);
  }

  writeMany(offset: number, size: number, from: Uint8Array): void {
    if (offset === RBR_THR_DLL && size === 1 && !(this.#lcr & LCR_DLAB) && !(this.#mcr & MCR_LOOP)) {
      this.#transmit(from);
      return;
    }
    for (let i = 0; i + size <= from.length; i += size) {
      for (let k = 0; k < size; k++) this.#writeByte((offset + k) & 7, from[i + k]);
    }
  }

  #readByte(register: number): number {
    switch (register) {
      case RBR_THR_DLL:
        return this.#lcr & LCR_DLAB ? this.#divisor & 0xff : this.#receive();
      case IER_DLM:
        return this.#lcr & LCR_DLAB ? this.#divisor >> 8 : this.#ier;
      case IIR_FCR: {
        const iir = this.#iir();
        if (iir === IIR_THRI) {
          this.#thri = false;
          this.#update();
        }
        return iir | (this.#fcr & FCR_ENABLE ? IIR_FIFO_ENABLED : 0);
      }
      case LCR:
        return this.#lcr;
      case MCR:
        return this.#mcr;
      case LSR: {
        const value = this.#lsr;
        if (value & LSR_ERRORS) {
          this.#overrun = false;
          if (this.#rx.length > 0) this.#rx[0] &= 0xff;
          this.#update();
        }
        return value;
      }
      case MSR: {
        if (this.#mcr & MCR_LOOP) return this.#loopedModemLines();
        const value = this.#msr;
        if (value & 0x0f) {
          this.#msr &= 0xf0;
          this.#update();
        }
        return value;
      }
      default:
        return this.#scr;
    }
  }

  #writeByte(register: number, value: number): void {
    switch (register) {
      case RBR_THR_DLL:
        if (this.#lcr & LCR_DLAB) {
          this.#divisor = (this.#divisor & 0xff00) | value;
        } else if (this.#mcr & MCR_LOOP) {
          this.#loopBack(value);
        } else {
          this.#one[0] = value;
          this.#transmit(this.#one);
        }
        return;
      case IER_DLM: {
        if (this.#lcr & LCR_DLAB) {
          this.#divisor = (this.#divisor & 0xff) | (value << 8);
          return;
        }
        const enabled = value & ~this.#ier & IER_THRI;
        this.#ier = value & 0x0f;
        // Enabling the interrupt while the register is empty raises it: drivers start transmission so.
        if (enabled && this.#tx.length === 0) this.#thri = true;
        this.#fill();
        return;
      }
      case IIR_FCR:
        if ((value ^ this.#fcr) & FCR_ENABLE) this.#clearReceiver();
        // Without the enable bit the others mean nothing.
        if (value & FCR_ENABLE && value & FCR_CLEAR_RCVR) this.#clearReceiver();
        if (value & FCR_ENABLE && value & FCR_CLEAR_XMIT) this.#clearTransmitter();
        this.#fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
        this.#fill();
        return;
      case LCR:
        this.#lcr = value;
        return;
      case MCR:
        if (value & MCR_RTS) this.#usesRts = true;
        this.#mcr = value & 0x1f;
        this.#fill();
        return;
      case LSR:
      case MSR:
        // Read only; writes are for factory tests.
        return;
      default:
        this.#scr = value;
    }
  }

  #loopedModemLines(): number {
    const mcr = this.#mcr;
    return (
      (mcr & MCR_RTS ? MSR_CTS : 0) |
      (mcr & MCR_DTR ? MSR_DSR : 0) |
      (mcr & MCR_OUT1 ? MSR_RI : 0) |
      (mcr & MCR_OUT2 ? MSR_DCD : 0)
    );
  }

  #loopBack(value: number): void {
    if (this.#rx.length < this.#fifoSize) this.#rx.push(value);
    else this.#overrun = true;
    this.#thri = true;
    this.#update();
  }

  #transmit(bytes: Uint8Array): void {
    let taken = 0;
    if (this.#tx.length === 0) taken = this.#channel.write(bytes);
    this.#thri = taken === bytes.length;
    for (; taken < bytes.length && this.#tx.length < MOST_HELD; taken++) this.#tx.push(bytes[taken]);
    this.#update();
  }

  /** The channel has room again. */
  #drain(): void {
    if (this.#tx.length === 0) return;
    const taken = this.#channel.write(Uint8Array.from(this.#tx));
    this.#tx = this.#tx.slice(taken);
    if (this.#tx.length === 0) this.#thri = true;
    this.#update();
  }

  #clearReceiver(): void {
    this.#rx.length = 0;
    this.#overrun = false;
    this.#update();
  }

  #clearTransmitter(): void {
    if (this.#tx.length === 0) return;
    this.#tx = [];
    this.#thri = true;
    this.#update();
  }

  get #fifoSize(): number {
    return this.#fcr & FCR_ENABLE ? FIFO_SIZE : 1;
  }

  /** True while the other end may not send. */
  get #held(): boolean {
    return (this.#mcr & MCR_LOOP) !== 0 || (this.#usesRts && !(this.#mcr & MCR_RTS));
  }

  /** Takes bytes from the channel while the FIFO has room and an interrupt handler is there to empty it. */
  #fill(): void {
    if (this.#ier & IER_RDI && !this.#held && !this.#pausing) {
      const room = Math.min(this.#fifoSize - this.#rx.length, RX_BURST - this.#burst);
      for (let i = 0; i < room; i++) {
        const byte = this.#channel.read();
        if (byte < 0) break;
        if (this.#burst++ === 0) this.#burstStart = this.#clock.now();
        this.#rx.push(byte);
      }
    }
    this.#update();
  }

  #receive(): number {
    const interrupts = (this.#ier & IER_RDI) !== 0;
    if (this.#rx.length === 0) {
      const byte = interrupts || this.#held ? -1 : this.#channel.read();
      this.#update();
      return Math.max(0, byte);
    }
    const byte = (this.#rx.shift() as number) & 0xff;
    if (this.#rx.length === 0) {
      if (!this.#channel.readable) this.#burst = 0;
      else if (this.#burst >= RX_BURST) this.#startPause();
      this.#fill();
    } else {
      this.#update();
    }
    return byte;
  }

  #startPause(): void {
    if (this.#pausing) return;
    const now = this.#clock.now();
    const half = (now - this.#burstStart) / 2n;
    this.#pausing = true;
    this.#pause.armAt(now + (half < SHORTEST_PAUSE ? SHORTEST_PAUSE : half > LONGEST_PAUSE ? LONGEST_PAUSE : half));
  }

  #endPause(): void {
    this.#pause.cancel();
    this.#pausing = false;
    this.#burst = 0;
  }

  get #lsr(): number {
    const rx = this.#rx;
    const ready = rx.length > 0 || (!(this.#ier & IER_RDI) && !this.#held && this.#channel.readable);
    let lsr = ready ? LSR_DR : 0;
    if (this.#overrun) lsr |= LSR_OE;
    if (this.#tx.length === 0) lsr |= LSR_THRE | LSR_TEMT;
    // A break shows when it is the next character to be read; before that, that there is one.
    if (rx.length > 0 && rx[0] & BREAK) lsr |= LSR_BI;
    if (this.#fcr & FCR_ENABLE && rx.some((character) => character & BREAK)) lsr |= LSR_FIFO_ERROR;
    return lsr;
  }

  /** The pending interrupt of the highest priority (data sheet, table IV). */
  #iir(): number {
    if (this.#ier & IER_RLSI && this.#lsr & LSR_ERRORS) return IIR_RLSI;
    if (this.#ier & IER_RDI && this.#rx.length > 0) {
      const trigger = this.#fcr & FCR_ENABLE ? FCR_TRIGGER[this.#fcr >> 6] : 1;
      // Four character times without a byte: at the host's speed that is now, or more would have come.
      return this.#rx.length >= trigger ? IIR_RDI : IIR_CTI;
    }
    if (this.#ier & IER_THRI && this.#thri) return IIR_THRI;
    if (this.#ier & IER_MSI && this.#msr & 0x0f) return IIR_MSI;
    return IIR_NO_INT;
  }

  #update(): void {
    // In loopback OUT2 is disconnected, which on PC boards gates the interrupt line.
    const level = this.#iir() !== IIR_NO_INT && !(this.#mcr & MCR_LOOP);
    if (level !== this.#level) {
      this.#level = level;
      this.#irq.set(level);
    }
    this.#publish();
  }

  #publish(): void {
    this.#shared?.publish(this.#lsr);
  }

  /** A break condition arrived (SysRq on a serial console). */
  sendBreak(): void {
    if (this.#rx.length < this.#fifoSize) this.#rx.push(BREAK);
    else this.#overrun = true;
    this.#update();
  }

  save(): DeviceState {
    return {
      kind: KIND,
      version: 1,
      ier: this.#ier,
      fcr: this.#fcr,
      lcr: this.#lcr,
      mcr: this.#mcr,
      msr: this.#msr,
      scr: this.#scr,
      divisorLow: this.#divisor & 0xff,
      divisorHigh: this.#divisor >> 8,
      overrun: this.#overrun,
      thri: this.#thri,
      usesRts: this.#usesRts,
      rx: this.#rx.map((character) => character & 0xff),
      breaks: this.#rx.map((character) => character >> 8),
      tx: [...this.#tx],
    };
  }

  restore(state: unknown): void {
    const from = requireKind(state, KIND, 1);
    const [ier, fcr, lcr, mcr, msr, scr] = ['ier', 'fcr', 'lcr', 'mcr', 'msr', 'scr'].map((name) => byteIn(from, name));
    const divisor = byteIn(from, 'divisorLow') | (byteIn(from, 'divisorHigh') << 8);
    const [overrun, thri, usesRts] = ['overrun', 'thri', 'usesRts'].map((name) => booleanIn(from, name));
    const rx = bytesIn(from, 'rx', FIFO_SIZE);
    const breaks = bytesIn(from, 'breaks', FIFO_SIZE);
    if (breaks.length !== rx.length)
      throw new Error(`The state has ${rx.length} characters and ${breaks.length} breaks.`);
    const tx = bytesIn(from, 'tx', MOST_HELD);
    this.#ier = ier & 0x0f;
    this.#fcr = fcr & FCR_ENABLE ? fcr & 0xc9 : 0;
    this.#lcr = lcr;
    this.#mcr = mcr & 0x1f;
    this.#msr = msr;
    this.#scr = scr;
    this.#divisor = divisor;
    this.#overrun = overrun;
    this.#thri = thri;
    this.#usesRts = usesRts;
    this.#rx.splice(0, this.#rx.length, ...rx.map((byte, index) => byte | (breaks[index] ? BREAK : 0)));
    this.#tx = tx;
    this.#endPause();
    this.#drain();
    this.#fill();
  }
}
