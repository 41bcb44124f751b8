/** Total bytes of a request's pieces. */
export function totalLength(views: readonly Uint8Array[]): number {
  let sum = 0;
  for (const view of views) sum += view.length;
  return sum;
}

/** The pieces that make up `length` bytes from `offset` on. */
export function viewsWithin(views: readonly Uint8Array[], offset: number, length: number): Uint8Array[] {
  const out: Uint8Array[] = [];
  let skip = offset;
  let left = length;
  for (const view of views) {
    if (left === 0) break;
    if (skip >= view.length) {
      skip -= view.length;
      continue;
    }
    const piece = view.subarray(skip, Math.min(view.length, skip + left));
    skip = 0;
    left -= piece.length;
    out.push(piece);
  }
  return out;
}
