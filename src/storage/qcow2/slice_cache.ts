import { Arena, type Pinned } from '../../ffi/arena.ts';
import type { ImageFile } from '../image_file.ts';
import { type Done, type Task, wait } from '../task.ts';

const SLICE = 4096;
const ARENA_SLICES = 256;

/** A piece of a metadata table. What is changed in it is marked with `SliceCache.dirty`. */
export interface Slice {
  /** Of the image's file. */
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Changed since it was last copied for writing. */
  dirty: boolean;
  /** Its bytes are on their way to the file. */
  writing: boolean;
}

/**
 * Pieces of L2 tables or refcount blocks, least recently used ones dropped. A slice that was got may be dropped
 * while a task waits: get it again after each wait, and change it at once.
 */
export class SliceCache {
  readonly sliceSize: number;
  readonly #file: ImageFile;
  readonly #limit: number;
  /** By offset; the order is that of use. */
  readonly #slices = new Map<number, Slice>();
  readonly #loading = new Map<number, Done[]>();
  readonly #dirty = new Set<Slice>();
  readonly #arenas: Arena[] = [];
  readonly #free: Pinned[] = [];
  #last: Slice | undefined;

  /** @param limit bytes that clean slices may take. */
  constructor(file: ImageFile, clusterSize: number, limit: number) {
    this.#file = file;
    this.sliceSize = Math.min(SLICE, clusterSize);
    this.#limit = Math.max(16, Math.floor(limit / this.sliceSize));
  }

  /** The slice at a file offset that is a multiple of the slice's size, if it is here. */
  peek(offset: number): Slice | undefined {
    if (this.#last?.offset === offset) return this.#last;
    const slice = this.#slices.get(offset);
    if (!slice) return undefined;
    this.#slices.delete(offset);
    this.#slices.set(offset, slice);
    this.#last = slice;
    return slice;
  }

  *load(offset: number): Task<Slice> {
    for (;;) {
      const slice = this.peek(offset);
      if (slice) return slice;
      yield* wait((done) => this.#fetch(offset, done));
    }
  }

  #fetch(offset: number, done: Done): void {
    const others = this.#loading.get(offset);
    if (others) {
      others.push(done);
      return;
    }
    const waiting = [done];
    this.#loading.set(offset, waiting);
    const block = this.#allocate();
    this.#file.read(offset, [block.bytes], (errno) => {
      this.#loading.delete(offset);
      if (errno) this.#free.push(block);
      else this.#insert(offset, block);
      for (const each of waiting) each(errno);
    });
  }

  /** A slice of a table that is made now: zeros, and to be written. */
  create(offset: number): Slice {
    const old = this.peek(offset);
    const slice = old ?? this.#insert(offset, this.#allocate());
    slice.bytes.fill(0);
    this.dirty(slice);
    return slice;
  }

  dirty(slice: Slice): void {
    if (slice.dirty) return;
    slice.dirty = true;
    this.#dirty.add(slice);
  }

  get dirtyCount(): number {
    return this.#dirty.size;
  }

  /** Are there so many changes that somebody should write them? */
  get crowded(): boolean {
    return this.#dirty.size * 2 > this.#limit;
  }

  #insert(offset: number, block: Pinned): Slice {
    const slice = { offset, bytes: block.bytes, view: block.view, dirty: false, writing: false, block };
    this.#slices.set(offset, slice);
    this.#last = slice;
    return slice;
  }

  #allocate(): Pinned {
    if (this.#slices.size >= this.#limit) this.#evict();
    const free = this.#free.pop();
    if (free) return free;
    const arena = new Arena(ARENA_SLICES * SLICE);
    this.#arenas.push(arena);
    for (let i = 0; i < ARENA_SLICES; i++) this.#free.push(arena.alloc(this.sliceSize, this.sliceSize));
    return this.#free.pop() as Pinned;
  }

  #evict(): void {
    for (const slice of this.#slices.values()) {
      if (slice.dirty || slice.writing) continue;
      this.#drop(slice);
      return;
    }
  }

  #drop(slice: Slice): void {
    this.#slices.delete(slice.offset);
    this.#dirty.delete(slice);
    if (this.#last === slice) this.#last = undefined;
    this.#free.push((slice as Slice & { block: Pinned }).block);
  }

  /** Forgets a table that is no longer one, with what was changed in it. */
  forget(offset: number, length: number): void {
    for (let at = offset; at < offset + length; at += this.sliceSize) {
      const slice = this.#slices.get(at);
      // Its bytes may be on their way: the memory stays until they have arrived.
      if (slice?.writing) {
        slice.dirty = false;
        this.#dirty.delete(slice);
        this.#slices.delete(at);
        if (this.#last === slice) this.#last = undefined;
      } else if (slice) this.#drop(slice);
    }
  }

  /**
   * Copies what has changed up to now, for writing at once or later. What is changed afterwards is not in it.
   */
  takeChanges(): Change[] {
    const changes = [...this.#dirty].map((slice) => ({ slice, bytes: slice.bytes.slice() }));
    for (const { slice } of changes) {
      slice.dirty = false;
      slice.writing = true;
    }
    this.#dirty.clear();
    return changes;
  }

  /** Writes what was taken; what cannot be written counts as changed again. */
  *write(changes: readonly Change[]): Task {
    if (changes.length === 0) return;
    yield (done) => {
      let left = changes.length;
      let failed = 0;
      this.#file.batch(() => {
        for (const { slice, bytes } of changes) {
          this.#file.write(slice.offset, [bytes], (errno) => {
            slice.writing = false;
            if (errno) {
              failed = errno;
              if (this.#slices.get(slice.offset) === slice) this.dirty(slice);
            }
            if (--left === 0) done(failed);
          });
        }
      });
    };
  }

  /** Changes that were taken and will not be written now. */
  giveBack(changes: readonly Change[]): void {
    for (const { slice } of changes) {
      slice.writing = false;
      if (this.#slices.get(slice.offset) === slice) this.dirty(slice);
    }
  }

  /** Drops all that is not to be written. */
  clear(): void {
    for (const slice of [...this.#slices.values()]) if (!slice.dirty && !slice.writing) this.#drop(slice);
  }

  free(): void {
    this.#slices.clear();
    this.#dirty.clear();
    this.#last = undefined;
    for (const arena of this.#arenas) arena.free();
  }
}

export interface Change {
  readonly slice: Slice;
  readonly bytes: Uint8Array;
}
