/**
 * The PC's keyboard controller (IBM Personal System/2 Hardware Interface Technical Reference, Keyboard and
 * Auxiliary Device Controller) with a keyboard that nobody types on, and no auxiliary device. It is there for
 * kernels and firmware that insist on one, and for those that reset the machine through it. Every command is
 * done when its write is: the input buffer is never seen full.
 */

import type { Device, DeviceState, IrqLine, Region } from './device.ts';
import { Ps2Keyboard } from './ps2_keyboard.ts';
import { booleanIn, byteIn, bytesIn, integerIn, requireKind } from './state.ts';

/** Status register, read at the command port. */
const STR_OBF = 0x01;
const STR_SYSTEM = 0x04;
const STR_CMDDAT = 0x08;
const STR_KEYLOCK = 0x10;

/** Command byte: byte 0 of the controller's RAM. */
const CTR_KBDINT = 0x01;
const CTR_SYSTEM = 0x04;
const CTR_KBDDIS = 0x10;
const CTR_AUXDIS = 0x20;
const CTR_XLATE = 0x40;
/** As firmware leaves it: interrupt, translation and no auxiliary device. */
const CTR_AT_RESET = CTR_KBDINT | CTR_SYSTEM | CTR_AUXDIS | CTR_XLATE;

const CMD_READ_RAM = 0x20;
const CMD_WRITE_RAM = 0x60;
const RAM_SIZE = 32;
const CMD_AUX_DISABLE = 0xa7;
const CMD_AUX_ENABLE = 0xa8;
const CMD_AUX_TEST = 0xa9;
const CMD_SELF_TEST = 0xaa;
const CMD_KBD_TEST = 0xab;
const CMD_KBD_DISABLE = 0xad;
const CMD_KBD_ENABLE = 0xae;
const CMD_READ_INPUT_PORT = 0xc0;
const CMD_READ_OUTPUT_PORT = 0xd0;
const CMD_WRITE_OUTPUT_PORT = 0xd1;
const CMD_WRITE_KBD_BUFFER = 0xd2;
const CMD_WRITE_AUX_BUFFER = 0xd3;
const CMD_WRITE_AUX = 0xd4;
const CMD_READ_TEST_INPUTS = 0xe0;
/** 0xf0–0xff: pulls low the bits of the output port that are 0 in the low nibble. */
const CMD_PULSE = 0xf0;

const SELF_TEST_GOOD = 0x55;
const KBD_TEST_GOOD = 0x00;
/** Of the auxiliary interface test: its clock line is stuck low. */
const AUX_TEST_NO_CLOCK = 0x01;
/** What comes instead of an answer when the auxiliary device gives none. */
const AUX_NO_ANSWER = 0xfe;
/** Input port: not locked, and a colour display. */
const INPUT_PORT = 0x80;

/** Output port. */
const OUT_NO_RESET = 0x01;
const OUT_A20 = 0x02;
const OUT_OBF = 0x10;

/** Answers kept for a guest that does not read them. */
const MOST_ANSWERS = 16;
const KIND = 'i8042';

export interface I8042Options {
  readonly irq: IrqLine;
  /** The guest pulled the processor's reset line. */
  readonly reset: () => void;
}

export class I8042 implements Device {
  readonly name = 'i8042';
  /** Port 0x60. */
  readonly data: Region = {
    name: 'i8042 data',
    size: 1,
    read: () => this.#readData(),
    write: (_offset, _size, value) => this.#writeData(value & 0xff),
  };
  /** Port 0x64: status when read. */
  readonly command: Region = {
    name: 'i8042 command',
    size: 1,
    read: () => this.#status,
    write: (_offset, _size, value) => this.#command(value & 0xff),
  };
  readonly #irq: IrqLine;
  readonly #reset: () => void;
  readonly #keyboard = new Ps2Keyboard();
  readonly #ram = new Uint8Array(RAM_SIZE);
  #outputPort = OUT_NO_RESET | OUT_A20;
  /** The command whose parameter comes next, or 0. */
  #awaiting = 0;
  /** Answers of the controller itself; they come before the keyboard's. */
  #answers: number[] = [];
  #lastData = 0;
  #lastWasCommand = true;
  #level = false;

  constructor(options: I8042Options) {
    this.#irq = options.irq;
    this.#reset = options.reset;
    this.#ram[0] = CTR_AT_RESET;
  }

  reset(): void {
    this.#keyboard.reset();
    this.#ram.fill(0);
    this.#ram[0] = CTR_AT_RESET;
    this.#outputPort = OUT_NO_RESET | OUT_A20;
    this.#awaiting = 0;
    this.#answers = [];
    this.#lastData = 0;
    this.#lastWasCommand = true;
    this.#update();
  }

  /** False when the guest masked address line 20 here. It is told so when it looks; memory does not wrap. */
  get a20(): boolean {
    return (this.#outputPort & OUT_A20) !== 0;
  }

  get #full(): boolean {
    return this.#answers.length > 0 || (!(this.#ram[0] & CTR_KBDDIS) && this.#keyboard.pending);
  }

  get #status(): number {
    return (
      STR_KEYLOCK |
      (this.#full ? STR_OBF : 0) |
      (this.#ram[0] & CTR_SYSTEM ? STR_SYSTEM : 0) |
      (this.#lastWasCommand ? STR_CMDDAT : 0)
    );
  }

  #readData(): number {
    if (!this.#full) return this.#lastData;
    this.#lastData = this.#answers.shift() ?? translate(this.#keyboard.take(), (this.#ram[0] & CTR_XLATE) !== 0);
    // The line falls with each byte, so that the next one is another edge.
    this.#setLevel(false);
    this.#update();
    return this.#lastData;
  }

  #answer(byte: number): void {
    if (this.#answers.length < MOST_ANSWERS) this.#answers.push(byte);
    this.#update();
  }

  #command(command: number): void {
    this.#lastWasCommand = true;
    this.#awaiting = 0;
    if (command >= CMD_PULSE) {
      if (!(command & OUT_NO_RESET)) this.#reset();
    } else if (command >= CMD_READ_RAM && command < CMD_READ_RAM + RAM_SIZE) {
      this.#answer(this.#ram[command - CMD_READ_RAM]);
    } else if (command >= CMD_WRITE_RAM && command < CMD_WRITE_RAM + RAM_SIZE) {
      this.#awaiting = command;
    } else {
      this.#otherCommand(command);
    }
  }

  #otherCommand(command: number): void {
    switch (command) {
      case CMD_AUX_DISABLE:
        this.#setCommandByte(this.#ram[0] | CTR_AUXDIS);
        break;
      case CMD_AUX_ENABLE:
        this.#setCommandByte(this.#ram[0] & ~CTR_AUXDIS);
        break;
      case CMD_AUX_TEST:
        this.#answer(AUX_TEST_NO_CLOCK);
        break;
      case CMD_SELF_TEST:
        this.#setCommandByte(this.#ram[0] | CTR_SYSTEM);
        this.#answer(SELF_TEST_GOOD);
        break;
      case CMD_KBD_TEST:
        this.#answer(KBD_TEST_GOOD);
        break;
      case CMD_KBD_DISABLE:
        this.#setCommandByte(this.#ram[0] | CTR_KBDDIS);
        break;
      case CMD_KBD_ENABLE:
        this.#setCommandByte(this.#ram[0] & ~CTR_KBDDIS);
        break;
      case CMD_READ_INPUT_PORT:
        this.#answer(INPUT_PORT);
        break;
      case CMD_READ_OUTPUT_PORT:
        this.#answer(this.#outputPort | (this.#full ? OUT_OBF : 0));
        break;
      case CMD_READ_TEST_INPUTS:
        this.#answer(0);
        break;
      case CMD_WRITE_OUTPUT_PORT:
      case CMD_WRITE_KBD_BUFFER:
      case CMD_WRITE_AUX_BUFFER:
      case CMD_WRITE_AUX:
        this.#awaiting = command;
    }
  }

  #writeData(byte: number): void {
    const command = this.#awaiting;
    this.#awaiting = 0;
    this.#lastWasCommand = false;
    if (command >= CMD_WRITE_RAM && command < CMD_WRITE_RAM + RAM_SIZE) {
      if (command === CMD_WRITE_RAM) this.#setCommandByte(byte);
      else this.#ram[command - CMD_WRITE_RAM] = byte;
    } else if (command === CMD_WRITE_OUTPUT_PORT) {
      this.#outputPort = (byte & OUT_A20) | OUT_NO_RESET;
      if (!(byte & OUT_NO_RESET)) this.#reset();
    } else if (command === CMD_WRITE_KBD_BUFFER || command === CMD_WRITE_AUX_BUFFER) {
      // Without an auxiliary device its buffer's flag is never set: that is how a driver learns of it at once.
      this.#answer(byte);
    } else if (command === CMD_WRITE_AUX) {
      this.#answer(AUX_NO_ANSWER);
    } else {
      // Sending to the keyboard turns its interface on.
      this.#ram[0] &= ~CTR_KBDDIS;
      this.#keyboard.command(byte);
      this.#update();
    }
  }

  #setCommandByte(value: number): void {
    this.#ram[0] = value;
    this.#update();
  }

  #update(): void {
    this.#setLevel(this.#full && (this.#ram[0] & CTR_KBDINT) !== 0);
  }

  #setLevel(level: boolean): void {
    if (level === this.#level) return;
    this.#level = level;
    this.#irq.set(level);
  }

  save(): DeviceState {
    return {
      kind: KIND,
      version: 1,
      ram: [...this.#ram],
      outputPort: this.#outputPort,
      awaiting: this.#awaiting,
      answers: [...this.#answers],
      lastData: this.#lastData,
      lastWasCommand: this.#lastWasCommand,
      keyboard: this.#keyboard.save(),
    };
  }

  restore(state: unknown): void {
    const from = requireKind(state, KIND, 1);
    const ram = bytesIn(from, 'ram', RAM_SIZE);
    if (ram.length !== RAM_SIZE) throw new Error(`The state field ram has ${ram.length} bytes, not ${RAM_SIZE}.`);
    const outputPort = byteIn(from, 'outputPort');
    const awaiting = integerIn(from, 'awaiting', 0, CMD_WRITE_AUX);
    const answers = bytesIn(from, 'answers', MOST_ANSWERS);
    const lastData = byteIn(from, 'lastData');
    const lastWasCommand = booleanIn(from, 'lastWasCommand');
    this.#keyboard.restore(from.keyboard);
    this.#ram.set(ram);
    this.#outputPort = (outputPort & OUT_A20) | OUT_NO_RESET;
    this.#awaiting = awaiting;
    this.#answers = answers;
    this.#lastData = lastData;
    this.#lastWasCommand = lastWasCommand;
    this.#update();
  }
}

/** Scan code set 2 to set 1, of the bytes that this keyboard sends: only its identity is changed by it. */
const translate = (byte: number, on: boolean): number => (on && byte === 0x83 ? 0x41 : byte);
