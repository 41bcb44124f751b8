/** The stream between a command that has a terminal in the guest and the terminal of its user. */

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

/** The terminal of whoever runs a command in the guest. */
export interface GuestTerminal {
  readonly size: TerminalSize;
  /** @param listener told of each later size. @returns the function that takes it off. */
  onResize(listener: (size: TerminalSize) => void): () => void;
}

/** What makes the guest's terminal: busybox' telnetd speaks Telnet (RFC 854), the script of util-linux passes bytes on. */
export type TerminalCoding = 'telnet' | 'plain';

const IAC = 255;
const SE = 240;
const SB = 250;
const WILL = 251;
const DONT = 254;
const CR = 13;
/** Kinds of what comes next in a stream of Telnet. */
type Expected = 'data' | 'command' | 'option' | 'subnegotiation' | 'subnegotiation-command';

/**
 * Decodes what the terminal's maker sends, up to the mark by which the login says that the command has ended
 * (src/lab/assets/agent.sh, interact): what was printed before it has all come by then.
 */
export class TerminalStream {
  readonly #mark: Buffer;
  readonly #telnet: boolean;
  #expected: Expected = 'data';
  /** The start of what may become the mark. */
  #held = Buffer.alloc(0);
  #ended = false;

  constructor(id: number, coding: TerminalCoding) {
    this.#mark = Buffer.from(`\x1b]nemu;${id}\x07`);
    this.#telnet = coding === 'telnet';
  }

  /** Whether the mark has come. */
  get ended(): boolean {
    return this.#ended;
  }

  /** What the command printed; nothing of what comes behind the mark. */
  decode(bytes: Buffer): Buffer {
    if (this.#ended) return Buffer.alloc(0);
    const data = Buffer.concat([this.#held, this.#telnet ? this.#withoutCommands(bytes) : bytes]);
    const at = data.indexOf(this.#mark);
    this.#ended = at >= 0;
    const end = at >= 0 ? at : data.length - this.#startOfMark(data);
    this.#held = Buffer.from(data.subarray(end));
    return data.subarray(0, end);
  }

  /** What the terminal's maker takes for bytes that its user typed. */
  encode(bytes: Uint8Array): Buffer {
    if (!this.#telnet) return Buffer.from(bytes);
    const encoded: number[] = [];
    for (const byte of bytes) {
      encoded.push(byte);
      if (byte === IAC) encoded.push(IAC);
      // A carriage return alone: what follows it would be taken for a part of a line's end.
      else if (byte === CR) encoded.push(0);
    }
    return Buffer.from(encoded);
  }

  /** Bytes at the end that the mark begins with. */
  #startOfMark(data: Buffer): number {
    for (let length = Math.min(this.#mark.length - 1, data.length); length > 0; length--) {
      if (data.subarray(data.length - length).equals(this.#mark.subarray(0, length))) return length;
    }
    return 0;
  }

  /** Negotiation is left without an answer: its defaults are what we do. */
  #withoutCommands(bytes: Buffer): Buffer {
    const data = Buffer.alloc(bytes.length);
    let length = 0;
    for (const byte of bytes) {
      switch (this.#expected) {
        case 'data':
          if (byte === IAC) this.#expected = 'command';
          else data[length++] = byte;
          break;
        case 'command':
          if (byte === IAC) data[length++] = byte;
          this.#expected = byte === SB ? 'subnegotiation' : byte >= WILL && byte <= DONT ? 'option' : 'data';
          break;
        case 'option':
          this.#expected = 'data';
          break;
        case 'subnegotiation':
          if (byte === IAC) this.#expected = 'subnegotiation-command';
          break;
        case 'subnegotiation-command':
          this.#expected = byte === SE ? 'data' : 'subnegotiation';
          break;
      }
    }
    return data.subarray(0, length);
  }
}
