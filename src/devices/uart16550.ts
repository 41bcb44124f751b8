/**
 * A 16550A UART (National Semiconductor PC16550D data sheet): the chip alone. Bytes go to and come from a
 * ByteChannel as fast as that takes and gives them; there is no baud timing. Nothing is lost by the chip:
 * received bytes stay in the channel until the FIFO has room and the guest's RTS allows (when it uses flow
 * control at all), and THRE stays clear while the channel is full.
 */
import type { ByteChannel, Device, DeviceState, IrqLine, Region } from './device.ts';
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
const LSR_ERRORS = 0x1e;

const MSR_CTS = 0x10;
const MSR_DSR = 0x20;
const MSR_RI = 0x40;
const MSR_DCD = 0x80;
/** The other end is always there and ready. */
const MSR_CONNECTED = MSR_CTS | MSR_DSR | MSR_DCD;

const FIFO_SIZE = 16;
const KIND = 'uart16550';

export interface Uart16550Options {
  readonly name: string;
  readonly irq: IrqLine;
  readonly channel: ByteChannel;
  /** Where vCPU threads look for LSR: they may serve its reads while no error bit is set. */
  readonly shared?: { publish(lsr: number): void };
}

export class Uart16550 implements Device, Region {
  readonly name: string;
  readonly size = 8;
  readonly #irq: IrqLine;
  readonly #channel: ByteChannel;
  readonly #shared: { publish(lsr: number): void } | undefined;
  #ier = 0;
  #fcr = 0;
  #lcr = 0;
  #mcr = 0;
  #lsr = LSR_THRE | LSR_TEMT;
  #msr = MSR_CONNECTED;
  #scr = 0;
  #divisor = 12;
  /** The THRE interrupt is an event: set by becoming empty, taken by reading IIR or writing THR. */
  #thri = false;
  /** Received bytes that sit below the trigger level with nothing more to come. */
  #timeout = false;
  #level = false;
  /** The driver dropped RTS once: from then on RTS tells whether it takes bytes. */
  #flowControl = false;
  readonly #rx: number[] = [];
  /** Bytes that the channel had no room for; while any are here THRE is clear. */
  #tx: number[] = [];
  readonly #one = new Uint8Array(1);

  constructor(options: Uart16550Options) {
    this.name = options.name;
    this.#irq = options.irq;
    this.#channel = options.channel;
    this.#shared = options.shared;
    this.#channel.onReadable = () => this.#fill();
    this.#channel.onWritable = () => this.#drain();
    this.#publish();
  }

  reset(): void {
    this.#ier = 0;
    this.#fcr = 0;
    this.#lcr = 0;
    this.#mcr = 0;
    this.#lsr = LSR_THRE | LSR_TEMT;
    this.#msr = MSR_CONNECTED;
    this.#scr = 0;
    this.#divisor = 12;
    this.#thri = false;
    this.#timeout = false;
    this.#flowControl = false;
    this.#rx.length = 0;
    this.#tx = [];
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
          this.#lsr &= ~LSR_ERRORS;
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
        if (enabled && this.#lsr & LSR_THRE) this.#thri = true;
        break;
      }
      case IIR_FCR:
        if ((value ^ this.#fcr) & FCR_ENABLE) this.#clearReceiver();
        if (value & FCR_CLEAR_RCVR) this.#clearReceiver();
        if (value & FCR_CLEAR_XMIT) this.#clearTransmitter();
        this.#fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
        this.#fill();
        return;
      case LCR:
        this.#lcr = value;
        return;
      case MCR:
        if (this.#mcr & MCR_RTS && !(value & MCR_RTS) && !(value & MCR_LOOP)) this.#flowControl = true;
        this.#mcr = value & 0x1f;
        this.#fill();
        return;
      case LSR:
      case MSR:
        // Read only; writes are for factory tests.
        return;
      default:
        this.#scr = value;
        return;
    }
    this.#update();
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
    if (this.#rx.length < this.#fifoSize) {
      this.#rx.push(value);
      this.#lsr |= LSR_DR;
      this.#timeout = true;
    } else {
      this.#lsr |= LSR_OE;
    }
    this.#thri = true;
    this.#update();
  }

  #transmit(bytes: Uint8Array): void {
    if (this.#tx.length > 0) {
      // The guest did not wait for THRE. A FIFO's worth is kept; beyond that it overran its own transmitter.
      for (const byte of bytes) if (this.#tx.length < FIFO_SIZE) this.#tx.push(byte);
      return;
    }
    const taken = this.#channel.write(bytes);
    if (taken === bytes.length) {
      this.#thri = true;
    } else {
      this.#tx = [...bytes.subarray(taken)];
      this.#thri = false;
      this.#lsr &= ~(LSR_THRE | LSR_TEMT);
    }
    this.#update();
  }

  /** The channel has room again. */
  #drain(): void {
    if (this.#tx.length === 0) return;
    const taken = this.#channel.write(Uint8Array.from(this.#tx));
    this.#tx = this.#tx.slice(taken);
    if (this.#tx.length > 0) return;
    this.#lsr |= LSR_THRE | LSR_TEMT;
    this.#thri = true;
    this.#update();
  }

  #clearReceiver(): void {
    this.#rx.length = 0;
    this.#timeout = false;
    this.#lsr &= ~(LSR_DR | LSR_ERRORS);
    this.#update();
  }

  #clearTransmitter(): void {
    if (this.#tx.length === 0) return;
    this.#tx = [];
    this.#lsr |= LSR_THRE | LSR_TEMT;
    this.#thri = true;
    this.#update();
  }

  get #fifoSize(): number {
    return this.#fcr & FCR_ENABLE ? FIFO_SIZE : 1;
  }

  /** Takes bytes from the channel while the FIFO has room and the guest wants them. */
  #fill(): void {
    const held = this.#mcr & MCR_LOOP || (this.#flowControl && !(this.#mcr & MCR_RTS));
    if (!held) {
      while (this.#rx.length < this.#fifoSize) {
        const byte = this.#channel.read();
        if (byte < 0) break;
        this.#rx.push(byte);
      }
    }
    if (this.#rx.length > 0) {
      this.#lsr |= LSR_DR;
      // Four character times without a byte: at the host's speed that is now, or more would have come.
      this.#timeout = true;
    }
    this.#update();
  }

  #receive(): number {
    const byte = this.#rx.shift() ?? 0;
    if (this.#rx.length === 0) {
      this.#lsr &= ~LSR_DR;
      this.#timeout = false;
      this.#fill();
    } else {
      this.#update();
    }
    return byte;
  }

  /** The pending interrupt of the highest priority (data sheet, table IV). */
  #iir(): number {
    if (this.#ier & IER_RLSI && this.#lsr & LSR_ERRORS) return IIR_RLSI;
    if (this.#ier & IER_RDI && this.#rx.length > 0) {
      const trigger = this.#fcr & FCR_ENABLE ? FCR_TRIGGER[this.#fcr >> 6] : 1;
      if (this.#rx.length >= trigger) return IIR_RDI;
      if (this.#timeout) return IIR_CTI;
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
    this.#rx.push(0);
    this.#lsr |= LSR_BI | LSR_DR;
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
      lsr: this.#lsr,
      msr: this.#msr,
      scr: this.#scr,
      divisorLow: this.#divisor & 0xff,
      divisorHigh: this.#divisor >> 8,
      thri: this.#thri,
      timeout: this.#timeout,
      flowControl: this.#flowControl,
      rx: [...this.#rx],
      tx: [...this.#tx],
    };
  }

  restore(state: unknown): void {
    const from = requireKind(state, KIND, 1);
    const [ier, fcr, lcr, mcr, lsr, msr, scr] = ['ier', 'fcr', 'lcr', 'mcr', 'lsr', 'msr', 'scr'].map((name) =>
      byteIn(from, name),
    );
    const divisor = byteIn(from, 'divisorLow') | (byteIn(from, 'divisorHigh') << 8);
    const [thri, timeout, flowControl] = ['thri', 'timeout', 'flowControl'].map((name) => booleanIn(from, name));
    const rx = bytesIn(from, 'rx', FIFO_SIZE + 1);
    const tx = bytesIn(from, 'tx', 4096);
    this.#ier = ier & 0x0f;
    this.#fcr = fcr;
    this.#lcr = lcr;
    this.#mcr = mcr & 0x1f;
    this.#lsr = (lsr & LSR_ERRORS) | (rx.length > 0 ? LSR_DR : 0) | (tx.length > 0 ? 0 : LSR_THRE | LSR_TEMT);
    this.#msr = msr;
    this.#scr = scr;
    this.#divisor = divisor;
    this.#thri = thri;
    this.#timeout = timeout;
    this.#flowControl = flowControl;
    this.#rx.splice(0, this.#rx.length, ...rx);
    this.#tx = tx;
    this.#update();
  }
}
