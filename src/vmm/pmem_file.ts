import { EAGAIN, EINTR, errnoName } from '../ffi/libc.ts';
import { EIO } from '../storage/file_queue.ts';
import type { ImageFile } from '../storage/image_file.ts';
import type { Done } from '../storage/task.ts';

/** What of a file persistent memory needs. */
export type PmemStore = Pick<ImageFile, 'read' | 'write' | 'sync' | 'drain' | 'close' | 'onBurst'>;

export interface PmemFileOptions {
  /** Bytes of memory, with which the file begins. */
  readonly size: number;
  /** Bytes of the label area behind them. */
  readonly labelSize: number;
  /** Whether what is written is to reach the file; else labels live as long as this object. */
  readonly lasting: boolean;
  /** A flush failed: what the guest takes for stored may not be. */
  readonly failed: (errno: string) => void;
}

/** A flush that somebody waits for. */
interface Waiting {
  readonly done: Done;
}

/**
 * The file behind persistent memory. The memory itself is a shared mapping of it, so that what a guest stores is in
 * the host's page cache at once; `flush` has it on stable storage. It lives in the machine thread.
 */
export class PmemFile {
  readonly labelSize: number;
  /** Flushes that are done. */
  flushes = 0;
  /** Why the last flush that failed did so. */
  failure: string | undefined;
  readonly #store: PmemStore;
  readonly #options: PmemFileOptions;
  readonly #labels: Uint8Array;
  /** Those that came while one was under way: it may have begun before they did. */
  #waiting: Waiting[] = [];
  #running: Waiting[] = [];
  #closed: (() => void) | undefined;

  /** @throws Error when the label area cannot be read. */
  constructor(store: PmemStore, options: PmemFileOptions) {
    this.#store = store;
    this.#options = options;
    this.labelSize = options.labelSize;
    this.#labels = new Uint8Array(options.labelSize);
    this.#readLabels();
  }

  #readLabels(): void {
    if (this.labelSize === 0) return;
    let errno = -1;
    this.#store.read(this.#options.size, [this.#labels], (result) => {
      errno = result;
    });
    while (errno < 0 && this.#store.drain());
    if (errno !== 0) throw new Error(`The label area cannot be read (${errnoName(errno < 0 ? EIO : errno)}).`);
  }

  /** All that was stored before is on stable storage when `done` is called; it may be called at once. */
  flush(done: Done): void {
    if (!this.#options.lasting) {
      this.flushes++;
      done(0);
      return;
    }
    this.#waiting.push({ done });
    this.#begin();
  }

  /** One fdatasync for all that wait; what comes while it runs waits for the next. */
  #begin(): void {
    if (this.#running.length > 0 || this.#waiting.length === 0) return;
    this.#running = this.#waiting;
    this.#waiting = [];
    this.#sync();
  }

  #sync(): void {
    // A sync of the file takes in what was stored through its mappings.
    this.#store.sync((errno) => {
      if (errno === EINTR || errno === EAGAIN) {
        this.#sync();
        return;
      }
      const ended = this.#running;
      this.#running = [];
      if (errno === 0) this.flushes += ended.length;
      else {
        this.failure = errnoName(errno);
        this.#options.failed(this.failure);
      }
      for (const { done } of ended) done(errno);
      this.#begin();
    });
  }

  readLabels(offset: number, length: number): Uint8Array {
    return this.#labels.slice(offset, offset + length);
  }

  writeLabels(offset: number, bytes: Uint8Array, done: Done): void {
    this.#labels.set(bytes, offset);
    if (!this.#options.lasting) {
      done(0);
      return;
    }
    this.#store.write(this.#options.size + offset, [bytes.slice()], (errno) => {
      if (errno === 0) this.flush(done);
      else done(errno);
    });
  }

  get busy(): boolean {
    return this.#running.length > 0;
  }

  /** Waits in place for what is under way. @returns whether anything was. */
  drain(): boolean {
    return this.busy && this.#store.drain();
  }

  /** Gives the file up as soon as nothing is under way. @param done called then. */
  close(done: () => void = () => {}): void {
    this.#closed = done;
    if (this.busy) {
      // Not in the middle of a completion, in which its queue still is.
      this.#store.onBurst = (running) => {
        if (!running && !this.busy) this.#end();
      };
    } else this.#end();
  }

  #end(): void {
    const done = this.#closed;
    if (!done) return;
    this.#closed = undefined;
    this.#store.close();
    done();
  }
}
