/** The kernel's log, from its ring buffer in memory: kernel/printk/printk_ringbuffer.c. */
import { NemuError } from '../errors.ts';
import type { AddressSpace } from './address_space.ts';
import type { VmcoreInfo } from './vmcoreinfo.ts';

export interface KernelMessage {
  readonly sequence: bigint;
  /** Nanoseconds since the kernel's start. */
  readonly time: bigint;
  /** 0 (emergency) to 7 (debug). */
  readonly level: number;
  readonly text: string;
}

/** The two highest bits of a descriptor's state variable; the others are its number. */
const STATE_SHIFT = 62n;
const ID_MASK = (1n << STATE_SHIFT) - 1n;
const COMMITTED = 1n;
const FINALIZED = 2n;
/** Descriptors and text bytes of the largest ring that a kernel makes (CONFIG_LOG_BUF_SHIFT is 25 at most). */
const MAX_DESCRIPTORS = 1 << 21;
const MAX_TEXT = 1 << 26;

/**
 * All messages that are in the ring, oldest first. What the guest writes meanwhile may be missing.
 * @throws NemuError VMCOREINFO, ADDRESS, KERNEL_LOG.
 */
export async function readKernelLog(info: VmcoreInfo, memory: AddressSpace): Promise<KernelMessage[]> {
  const ringSize = info.size('printk_ringbuffer');
  const ringAt = await memory.u64(info.symbol('prb'));
  const ring = await memory.view(ringAt, bounded(ringSize, 4096, 'the ring buffer'));
  const desc = info.offset('printk_ringbuffer.desc_ring');
  const data = info.offset('printk_ringbuffer.text_data_ring');
  const counter = info.offset('atomic_long_t.counter');

  const descBits = ring.getUint32(desc + info.offset('prb_desc_ring.count_bits'), true);
  const count = bounded(2 ** descBits, MAX_DESCRIPTORS, 'the ring of descriptors');
  const descriptorsAt = ring.getBigUint64(desc + info.offset('prb_desc_ring.descs'), true);
  const infosAt = ring.getBigUint64(desc + info.offset('prb_desc_ring.infos'), true);
  const head = ring.getBigUint64(desc + info.offset('prb_desc_ring.head_id') + counter, true) & ID_MASK;
  const tail = ring.getBigUint64(desc + info.offset('prb_desc_ring.tail_id') + counter, true) & ID_MASK;
  const textSize = bounded(
    2 ** ring.getUint32(data + info.offset('prb_data_ring.size_bits'), true),
    MAX_TEXT,
    'the ring of text',
  );
  const textAt = ring.getBigUint64(data + info.offset('prb_data_ring.data'), true);

  const descSize = bounded(info.size('prb_desc'), 256, 'a descriptor');
  const infoSize = bounded(info.size('printk_info'), 1024, 'a record');
  const wanted = Number(((head - tail) & ID_MASK) + 1n);
  if (wanted > count) throw damaged(`its descriptors go from ${tail} to ${head}, and there are ${count}`);

  const messages: KernelMessage[] = [];
  for (let i = 0; i < wanted; i++) {
    const id = (tail + BigInt(i)) & ID_MASK;
    const index = id % BigInt(count);
    const descriptor = await memory.view(descriptorsAt + index * BigInt(descSize), descSize);
    const state = descriptor.getBigUint64(info.offset('prb_desc.state_var') + counter, true);
    const kind = state >> STATE_SHIFT;
    if ((state & ID_MASK) !== id || (kind !== COMMITTED && kind !== FINALIZED)) continue;
    const block = info.offset('prb_desc.text_blk_lpos');
    const begin = descriptor.getBigUint64(block + info.offset('prb_data_blk_lpos.begin'), true);
    const next = descriptor.getBigUint64(block + info.offset('prb_data_blk_lpos.next'), true);
    const record = await memory.view(infosAt + index * BigInt(infoSize), infoSize);
    const length = record.getUint16(info.offset('printk_info.text_len'), true);
    messages.push({
      sequence: record.getBigUint64(info.offset('printk_info.seq'), true),
      time: record.getBigUint64(info.offset('printk_info.ts_nsec'), true),
      // Behind the facility byte: flags in the lower five bits, the level in the upper three.
      level: record.getUint8(info.offset('printk_info.text_len') + 3) >> 5,
      text: await text(memory, textAt, BigInt(textSize), begin, next, length),
    });
  }
  return messages;
}

/** A block of text: an id of 8 bytes, then the bytes. One that would wrap begins at the ring's start instead. */
async function text(
  memory: AddressSpace,
  at: bigint,
  size: bigint,
  begin: bigint,
  next: bigint,
  length: number,
): Promise<string> {
  // Bit 0 set in both: a message without text, or one whose text is lost.
  if (begin & 1n && next & 1n) return '';
  const wraps = begin / size !== next / size && next % size !== 0n;
  const start = wraps ? 0n : begin % size;
  const room = Number((wraps ? next % size : next - begin) - 8n);
  if (room < 0 || room > Number(size)) return '';
  const bytes = await memory.read(at + start + 8n, Math.min(length, room));
  return Buffer.from(bytes).toString('utf8');
}

function bounded(value: number, most: number, what: string): number {
  if (!Number.isInteger(value) || value < 1 || value > most) throw damaged(`${what} has ${value} bytes or entries`);
  return value;
}

const damaged = (why: string) =>
  new NemuError('KERNEL_LOG', `The kernel's log cannot be read: ${why}.`, {
    hint: 'The guest may be writing it; try again, or pause the guest first.',
  });
