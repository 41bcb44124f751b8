import type { Done, Task } from './task.ts';

/** A run of bytes of an image that are all of one kind. */
export interface Extent {
  /** Bytes from where the question was asked; at least 1. */
  readonly length: number;
  /** `data`: stored here; `zero`: known to read as zeros; `hole`: nothing here, so the backing image's, or zeros. */
  readonly kind: 'data' | 'zero' | 'hole';
  /** Where `data` lies in the image's file; compressed data has no place of its own. */
  readonly fileOffset?: number;
  readonly compressed?: boolean;
  /** Data for which the file has a hole: zeros, for whoever only reads. */
  readonly sparse?: boolean;
}

/** A disk's bytes, whatever the format that holds them. Offsets and lengths are bytes; views stay until `done`. */
export interface BlockImage {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  /** Bytes, a multiple of 512. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly blockSize: number;
  readonly physicalBlockSize: number;
  readonly canDiscard: boolean;
  read(offset: number, into: readonly Uint8Array[], done: Done): void;
  write(offset: number, from: readonly Uint8Array[], done: Done): void;
  /** What was written before is on stable storage when `done` is called. */
  flush(done: Done): void;
  discard(offset: number, length: number, done: Done): void;
  writeZeroes(offset: number, length: number, mayUnmap: boolean, done: Done): void;
  /** Does `action`, and hands over in one go what it asked for. */
  batch(action: () => void): void;
  /** Called before (true) and after (false) a burst of completions. */
  onBurst: ((running: boolean) => void) | undefined;
  /** What lies at `offset` in this image alone, not in its backing image. */
  extent(offset: number): Task<Extent>;
  /** Gives the disk another size. Nothing may be under way. @throws StorageError, IoError. */
  resize(size: number): Task;
  /** Looks at the size again. @returns whether it has changed. */
  refreshSize(): boolean;
  /** Waits for something that is under way, in place. @returns whether there was anything. */
  drain(): boolean;
  /**
   * Puts all on stable storage and lets go of the files, which happens whatever fails.
   * @throws IoError, StorageError.
   */
  close(): void;
}
