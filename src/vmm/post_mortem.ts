/**
 * A mapped file that outlives the process: what ran, what it printed last, how often it left the guest, and
 * why it ended. Written while the machine runs, read by the supervisor or by `nemu logs` after a crash.
 *
 * Layout (little endian): magic, then four u32 words — length of the description, of the error, of the
 * counters, and the free-running count of console bytes — then the areas at fixed offsets.
 */
import { closeSync, ftruncateSync, openSync, readFileSync } from 'node:fs';
import { NemuError } from '../client/errors.ts';
import { close, MAP_SHARED, mmap, O_RDWR, open, PROT_READ, PROT_WRITE, viewOf } from '../ffi/libc.ts';

const MAGIC = 'NEMUPM01';
const WORD = { DESCRIPTION: 8, ERROR: 12, COUNTERS: 16, CONSOLE: 20 } as const;
const AREA = {
  description: { offset: 64, size: 32 * 1024 - 64 },
  error: { offset: 32 * 1024, size: 16 * 1024 },
  counters: { offset: 48 * 1024, size: 16 * 1024 },
  console: { offset: 64 * 1024, size: 64 * 1024 },
} as const;
const FILE_SIZE = 128 * 1024;

/** What a post-mortem file tells. */
export interface PostMortemReport {
  readonly description: unknown;
  readonly error: string;
  readonly counters: unknown;
  /** The last bytes of the guest's console. */
  readonly console: string;
}

/** One thread's mapping of a post-mortem file. Texts that are too long are cut, never refused. */
export class PostMortem {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  private constructor(path: string) {
    const fd = open(path, O_RDWR);
    const address = mmap(0, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    const buffer = viewOf(address, FILE_SIZE);
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
  }

  static create(path: string): PostMortem {
    const fd = openSync(path, 'w', 0o600);
    ftruncateSync(fd, FILE_SIZE);
    closeSync(fd);
    const file = new PostMortem(path);
    file.#bytes.set(Buffer.from(MAGIC));
    return file;
  }

  /** A further mapping of a file that another thread made. */
  static open(path: string): PostMortem {
    return new PostMortem(path);
  }

  #setText(area: 'description' | 'error' | 'counters', word: number, text: string): void {
    const bytes = Buffer.from(text).subarray(0, AREA[area].size);
    this.#view.setUint32(word, 0, true);
    this.#bytes.set(bytes, AREA[area].offset);
    this.#view.setUint32(word, bytes.length, true);
  }

  setDescription(description: unknown): void {
    this.#setText('description', WORD.DESCRIPTION, JSON.stringify(description));
  }

  setError(text: string): void {
    this.#setText('error', WORD.ERROR, text);
  }

  setCounters(counters: unknown): void {
    this.#setText('counters', WORD.COUNTERS, JSON.stringify(counters));
  }

  appendConsole(bytes: Uint8Array): void {
    const { offset, size } = AREA.console;
    const written = this.#view.getUint32(WORD.CONSOLE, true);
    const kept = bytes.length > size ? bytes.subarray(bytes.length - size) : bytes;
    const start = (written + bytes.length - kept.length) % size;
    const first = Math.min(kept.length, size - start);
    this.#bytes.set(kept.subarray(0, first), offset + start);
    this.#bytes.set(kept.subarray(first), offset);
    this.#view.setUint32(WORD.CONSOLE, (written + bytes.length) >>> 0, true);
  }

  /** @throws NemuError POST_MORTEM when the file is not a whole post-mortem. */
  static read(path: string): PostMortemReport {
    let file: Buffer;
    try {
      file = readFileSync(path);
    } catch (cause) {
      throw new NemuError('POST_MORTEM', `The post-mortem ${path} cannot be read: ${(cause as Error).message}.`, {
        cause,
      });
    }
    if (file.length < FILE_SIZE || file.toString('latin1', 0, 8) !== MAGIC) {
      throw new NemuError('POST_MORTEM', `${path} is not a post-mortem file.`);
    }
    const text = (area: 'description' | 'error' | 'counters', word: number) => {
      const { offset, size } = AREA[area];
      return file.toString('utf8', offset, offset + Math.min(file.readUInt32LE(word), size));
    };
    const json = (value: string): unknown => {
      try {
        return JSON.parse(value);
      } catch {
        return undefined;
      }
    };
    const { offset, size } = AREA.console;
    const written = file.readUInt32LE(WORD.CONSOLE);
    const ring = file.subarray(offset, offset + size);
    const console =
      written <= size
        ? ring.subarray(0, written)
        : Buffer.concat([ring.subarray(written % size), ring.subarray(0, written % size)]);
    return {
      description: json(text('description', WORD.DESCRIPTION)),
      error: text('error', WORD.ERROR),
      counters: json(text('counters', WORD.COUNTERS)),
      console: console.toString('utf8'),
    };
  }
}
