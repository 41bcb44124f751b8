/** Label areas of NVDIMMs as `ndctl init-labels` leaves them (UEFI specification 2.10, section 13.19). */

const INDEX = 256;
const LABEL = 256;
const SIGNATURE = 'NAMESPACE_INDEX\0';

/** An area with room for namespaces and none in it. @param size bytes, 128 KiB for example. */
export function emptyLabels(size: number): Buffer {
  const area = Buffer.alloc(size);
  const slots = size / LABEL - 2;
  for (const which of [0, 1]) {
    const index = area.subarray(which * INDEX, (which + 1) * INDEX);
    index.write(SIGNATURE, 0, 'latin1');
    // Labels of 2^(7 + 1) bytes; the newer of the two has the higher sequence number.
    index[19] = 1;
    index.writeUInt32LE(1 + which, 20);
    index.writeBigUInt64LE(BigInt(which * INDEX), 24);
    index.writeBigUInt64LE(BigInt(INDEX), 32);
    index.writeBigUInt64LE(BigInt((1 - which) * INDEX), 40);
    index.writeBigUInt64LE(BigInt(2 * INDEX), 48);
    index.writeUInt32LE(slots, 56);
    index.writeUInt16LE(1, 60);
    index.writeUInt16LE(2, 62);
    for (let slot = 0; slot < slots; slot++) index[72 + (slot >> 3)] |= 1 << (slot & 7);
    index.writeBigUInt64LE(fletcher64(index), 64);
  }
  return area;
}

function fletcher64(bytes: Buffer): bigint {
  let [low, high] = [0, 0n];
  for (let at = 0; at < bytes.length; at += 4) {
    low = (low + bytes.readUInt32LE(at)) >>> 0;
    high = BigInt.asUintN(32, high + BigInt(low));
  }
  return (high << 32n) | BigInt(low);
}
