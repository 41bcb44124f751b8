import { discardRam, type MemoryHandle } from './memory.ts';

/** What memory is made of, as far as giving it back goes. */
export interface RamBackend {
  readonly share: boolean;
  readonly backend: 'anonymous' | 'memfd' | 'file';
}

/** Huge pages are memory of a file, whatever is asked for. */
export const backendOf = (memory: RamBackend & { readonly hugepages?: string | undefined }): RamBackend => ({
  share: memory.share,
  backend: memory.hugepages ? 'memfd' : memory.backend,
});

/** A part of guest-physical memory, in bytes. */
export interface MemoryPart {
  readonly address: number;
  readonly size: number;
  readonly backend: RamBackend;
}

/** A range cut where what is behind it changes; what no part has is left out. Parts do not overlap. */
export function* piecesOf(gpa: number, length: number, parts: Iterable<MemoryPart>): Generator<MemoryPart> {
  const end = gpa + length;
  for (const { address, size, backend } of parts) {
    const [from, to] = [Math.max(gpa, address), Math.min(end, address + size)];
    if (from < to) yield { address: from, size: to - from, backend };
  }
}

/** Gives the host back what a guest does not use, each piece as what is behind it takes it. */
export function discardPieces(handle: MemoryHandle, gpa: number, length: number, parts: Iterable<MemoryPart>): void {
  for (const { address, size, backend } of piecesOf(gpa, length, parts)) {
    discardRam(handle, backend, address, size);
  }
}
