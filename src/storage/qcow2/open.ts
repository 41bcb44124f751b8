/** The first look at an image: its header, and tables of its own. */
import type { ImageFile } from '../image_file.ts';
import { type Task, wait } from '../task.ts';
import { type Header, INCOMPATIBLE, parseHeader } from './format.ts';
import { Metadata } from './metadata.ts';

/** Bytes that are looked at for the header and its extensions, which stand in the first cluster. */
const MOST = 65536;

/** Reads the header of an image. @throws StorageError. */
function* readHeader(file: ImageFile): Task<Header> {
  const head = new Uint8Array(Math.min(file.length, MOST));
  if (head.length > 0) yield* wait((done) => file.read(0, [head], done));
  return parseHeader(head, file.path);
}

/** Opens the image's own tables; a dirty image is to be counted anew first. */
export function* openMetadata(file: ImageFile, readOnly: boolean): Task<Metadata> {
  const header = yield* readHeader(file);
  const metadata = new Metadata(file, header, readOnly);
  yield* metadata.open();
  return metadata;
}

export const isDirty = (header: Header): boolean => (header.incompatible & INCOMPATIBLE.DIRTY) !== 0n;
export const isCorrupt = (header: Header): boolean => (header.incompatible & INCOMPATIBLE.CORRUPT) !== 0n;
