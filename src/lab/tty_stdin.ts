/**
 * Standard input for a command in the guest, as bytes for its serial port. The guest's terminal is in
 * canonical mode with everything off but `icanon`, `iexten`, `lnext ^V` and `eof ^D` (see `command_mode` in
 * assets/init.sh): ^V makes the next byte an ordinary one, and ^D hands what is there to the reader, which
 * is end of file when nothing is there. So any byte gets through, and so does the end.
 *
 * (POSIX.1-2017, 11.1.6 Canonical Mode Input Processing and 11.1.9 Special Characters; VLNEXT is termios(3).)
 */
import { Transform, type TransformCallback } from 'node:stream';

const LNEXT = 0x16;
const EOF = 0x04;
const NEWLINE = 0x0a;

/**
 * Bytes after which an unfinished line is handed over. The guest's line buffer takes 4095 (N_TTY_BUF_SIZE
 * less one) and drops what comes behind.
 */
const FLUSH_EVERY = 1000;

/** Encodes one stream. Bytes may arrive in any pieces; the guest's reader sees each piece without delay. */
export class TtyStdinEncoder {
  #pending = 0;

  /** The encoded form of `bytes`, ready to send. */
  encode(bytes: Uint8Array): Buffer {
    // Each byte doubles at most, and each run of FLUSH_EVERY and the end of the piece adds one.
    const out = Buffer.allocUnsafe(bytes.length * 2 + Math.ceil(bytes.length / FLUSH_EVERY) + 2);
    let length = 0;
    for (const byte of bytes) {
      if (byte === LNEXT || byte === EOF) out[length++] = LNEXT;
      out[length++] = byte;
      this.#pending = byte === NEWLINE ? 0 : this.#pending + 1;
      // ^D on an empty line would be end of file: only ever sent behind at least one byte.
      if (this.#pending >= FLUSH_EVERY) {
        out[length++] = EOF;
        this.#pending = 0;
      }
    }
    if (this.#pending > 0) {
      out[length++] = EOF;
      this.#pending = 0;
    }
    return out.subarray(0, length);
  }

  /** The end of the input: twice, for a second reader such as the shell behind the command. */
  end(): Buffer {
    return Buffer.from([EOF, EOF]);
  }
}

/** The encoder as a stream. Send nothing before the guest has said `phase ready`. */
export function ttyStdinTransform(): Transform {
  const encoder = new TtyStdinEncoder();
  return new Transform({
    transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback) {
      done(null, encoder.encode(chunk));
    },
    flush(done: TransformCallback) {
      done(null, encoder.end());
    },
  });
}
