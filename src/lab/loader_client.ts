import type { Duplex } from 'node:stream';
import { NemuError } from '../client/errors.ts';
import { encodeFrame, FrameDecoder } from '../client/frames.ts';
import { FAILURE, REQUEST, RESULT, STDERR, STDIN, STDOUT } from './loader_protocol.ts';

interface Pending {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
  onOutput: ((stream: 'stdout' | 'stderr', bytes: Buffer) => void) | undefined;
}

/** A request under way: its outcome, and a way to send it bytes. */
export interface LoaderCall<T> {
  readonly channel: number;
  readonly result: Promise<T>;
  /** Sends bytes to its program or file. */
  write(bytes: Uint8Array): void;
  end(): void;
}

const CHUNK = 64 << 10;
/** How often a lab is kept awake, and how many times without an answer. */
const AWAKE_MS = 500;
const MAX_UNANSWERED = 8;

/** The host's side of a lab's loader. */
export class LoaderClient {
  /** Settles when the loader says for the first time that it is there. */
  readonly greeted: Promise<void>;
  readonly #port: Duplex;
  readonly #pending = new Map<number, Pending>();
  #nextChannel = 1;
  #closed: Error | undefined;
  #greet: () => void = () => {};

  constructor(port: Duplex) {
    this.#port = port;
    this.greeted = new Promise((resolve) => {
      this.#greet = resolve;
    });
    const decoder = new FrameDecoder();
    port.on('data', (bytes: Buffer) => {
      try {
        for (const { type, channel, payload } of decoder.push(bytes)) {
          this.#receive(type, channel, Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength));
        }
      } catch (error) {
        this.fail(error as Error);
      }
    });
  }

  /**
   * Starts an operation of the loader.
   * `result` rejects with NemuError LAB_REQUEST when it fails in the lab.
   */
  call<T>(op: string, args: object = {}, onOutput?: Pending['onOutput']): LoaderCall<T> {
    const channel = this.#nextChannel++;
    const result = new Promise<T>((resolve, reject) => {
      if (this.#closed) {
        reject(this.#closed);
        return;
      }
      this.#pending.set(channel, { resolve: (value) => resolve(value as T), reject, onOutput });
      this.#port.write(encodeFrame(REQUEST, channel, Buffer.from(JSON.stringify({ op, ...args }))));
    });
    return {
      channel,
      result,
      write: (bytes) => {
        for (let at = 0; at < bytes.length; at += CHUNK) {
          this.#port.write(encodeFrame(STDIN, channel, bytes.subarray(at, at + CHUNK)));
        }
      },
      end: () => {
        this.#port.write(encodeFrame(STDIN, channel));
      },
    };
  }

  /**
   * Asks the lab again and again whether it is there. An emulated processor with SVM now and then loses an interrupt: the
   * thread that runs it changes the word of pending ones (VMRUN, #VMEXIT) without a lock, while a device's thread sets a
   * bit in it. When that was the timer's, and nothing else comes, the lab sleeps for good; any interrupt wakes it.
   * @returns the function that ends it.
   */
  keepAwake(): () => void {
    let unanswered = 0;
    const timer = setInterval(() => {
      if (unanswered >= MAX_UNANSWERED) return;
      unanswered++;
      const answered = () => {
        unanswered--;
      };
      this.call('ping').result.then(answered, answered);
    }, AWAKE_MS);
    timer.unref();
    return () => clearInterval(timer);
  }

  /** Rejects all that is under way and all that follows. */
  fail(error: Error): void {
    this.#closed ??= error;
    for (const pending of this.#pending.values()) pending.reject(this.#closed);
    this.#pending.clear();
  }

  #receive(type: number, channel: number, payload: Buffer): void {
    if (channel === 0 && type === RESULT) {
      this.#greet();
      return;
    }
    const pending = this.#pending.get(channel);
    if (!pending) return;
    if (type === STDOUT) pending.onOutput?.('stdout', payload);
    else if (type === STDERR) pending.onOutput?.('stderr', payload);
    else if (type === RESULT) {
      this.#pending.delete(channel);
      pending.resolve(JSON.parse(payload.toString('utf8')));
    } else if (type === FAILURE) {
      this.#pending.delete(channel);
      const { message, stack } = JSON.parse(payload.toString('utf8')) as { message: string; stack?: string };
      pending.reject(new NemuError('LAB_REQUEST', `The lab could not do it: ${message}`, { cause: stack }));
    }
  }
}
