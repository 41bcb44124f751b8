/**
 * A PS/2 keyboard that answers its controller and has no keys (IBM Personal System/2 Hardware Interface
 * Technical Reference, Keyboards; commands as in linux/drivers/input/keyboard/atkbd.c).
 */
import type { DeviceState } from './device.ts';
import { byteIn, bytesIn, integerIn, requireKind } from './state.ts';

const CMD_SETLEDS = 0xed;
const CMD_ECHO = 0xee;
const CMD_SCANSET = 0xf0;
const CMD_GETID = 0xf2;
const CMD_SETREP = 0xf3;
const CMD_ENABLE = 0xf4;
const CMD_DISABLE = 0xf5;
const CMD_DEFAULTS = 0xf6;
const CMD_RESEND = 0xfe;
const CMD_RESET = 0xff;

const ACK = 0xfa;
const NAK = 0xfe;
/** Basic assurance test passed. */
const BAT_GOOD = 0xaa;
const ID = [0xab, 0x83];
const DEFAULT_SCANSET = 2;
/** The longest answer: to a request for the identity. */
const MOST_PENDING = 3;
const KIND = 'ps2-keyboard';

export class Ps2Keyboard {
  #pending: number[] = [];
  /** The command whose parameter comes next, or 0. */
  #awaiting = 0;
  #scanset = DEFAULT_SCANSET;
  #lastSent = BAT_GOOD;

  reset(): void {
    this.#pending = [];
    this.#awaiting = 0;
    this.#scanset = DEFAULT_SCANSET;
    this.#lastSent = BAT_GOOD;
  }

  /** True when it has a byte to send. */
  get pending(): boolean {
    return this.#pending.length > 0;
  }

  /** The next byte it sends; 0 when it has none. */
  take(): number {
    if (this.#pending.length === 0) return 0;
    this.#lastSent = this.#pending.shift() as number;
    return this.#lastSent;
  }

  /** A byte from the controller. What was not taken of the answer before is gone, as the keyboard's manual says. */
  command(byte: number): void {
    const awaiting = this.#awaiting;
    this.#awaiting = 0;
    if (awaiting !== 0 && byte < CMD_SETLEDS) {
      this.#pending = this.#parameter(awaiting, byte);
      return;
    }
    this.#pending = this.#answer(byte);
  }

  #parameter(command: number, byte: number): number[] {
    if (command !== CMD_SCANSET) return [ACK];
    if (byte === 0) return [ACK, this.#scanset];
    if (byte > 3) return [NAK];
    this.#scanset = byte;
    return [ACK];
  }

  #answer(command: number): number[] {
    switch (command) {
      case CMD_RESET:
        this.reset();
        return [ACK, BAT_GOOD];
      case CMD_DEFAULTS:
      case CMD_DISABLE:
        this.#scanset = DEFAULT_SCANSET;
        return [ACK];
      case CMD_ENABLE:
        return [ACK];
      case CMD_GETID:
        return [ACK, ...ID];
      case CMD_ECHO:
        return [CMD_ECHO];
      case CMD_RESEND:
        return [this.#lastSent];
      case CMD_SETLEDS:
      case CMD_SETREP:
      case CMD_SCANSET:
        this.#awaiting = command;
        return [ACK];
      default:
        return [NAK];
    }
  }

  save(): DeviceState {
    return {
      kind: KIND,
      version: 1,
      pending: [...this.#pending],
      awaiting: this.#awaiting,
      scanset: this.#scanset,
      lastSent: this.#lastSent,
    };
  }

  /** @throws Error when the state is not one of a keyboard. */
  restore(state: unknown): void {
    const from = requireKind(state, KIND, 1);
    const pending = bytesIn(from, 'pending', MOST_PENDING);
    const awaiting = byteIn(from, 'awaiting');
    const scanset = integerIn(from, 'scanset', 1, 3);
    const lastSent = byteIn(from, 'lastSent');
    this.#pending = pending;
    this.#awaiting = awaiting;
    this.#scanset = scanset;
    this.#lastSent = lastSent;
  }
}
