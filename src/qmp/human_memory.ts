/** `x` and `xp`: the guest's memory in rows of numbers. */
import { virtualMemory } from './commands/memory.ts';
import { type Entry, expression, UsageError } from './human_line.ts';
import type { Monitor } from './monitor.ts';

const SIZES: Readonly<Record<string, number>> = { b: 1, h: 2, w: 4, g: 8 };
const FORMATS = 'xduoc';
const MAX_COUNT = 4096;

interface Format {
  readonly count: number;
  readonly format: string;
  /** Bytes of a number. */
  readonly size: number;
}

/** `/4xw`. @throws UsageError */
function formatOf(text: string): Format {
  const [, count = '', letters] = /^\/(\d*)(.*)$/.exec(text) as unknown as [string, string, string];
  let [format, size] = ['x', 0];
  for (const letter of letters) {
    if (FORMATS.includes(letter)) format = letter;
    else if (Object.hasOwn(SIZES, letter)) size = SIZES[letter];
    else if (letter === 'i') throw new UsageError('instructions are not disassembled here');
    else throw new UsageError(`invalid char in format: '${letter}'`);
  }
  if (count.length > 5 || Number(count) > MAX_COUNT) throw new UsageError(`no more than ${MAX_COUNT} are shown`);
  return { count: count === '' ? 1 : Number(count), format, size: size || (format === 'c' ? 1 : 4) };
}

function character(code: number): string {
  const named: Readonly<Record<number, string>> = { 10: '\\n', 13: '\\r', 39: "\\'", 92: '\\\\' };
  if (code in named) return `'${named[code]}'`;
  return code >= 32 && code < 127 ? `'${String.fromCharCode(code)}'` : `'\\x${code.toString(16).padStart(2, '0')}'`;
}

function numberText(view: DataView, at: number, { format, size }: Format): string {
  const bits = 8 * size;
  const value = [1, 2, 4].includes(size)
    ? BigInt(size === 1 ? view.getUint8(at) : size === 2 ? view.getUint16(at, true) : view.getUint32(at, true))
    : view.getBigUint64(at, true);
  const decimal = Math.ceil((bits * 10) / 33);
  switch (format) {
    case 'x':
      return `0x${value.toString(16).padStart(2 * size, '0')}`;
    case 'o':
      return `0${value.toString(8)}`.padStart(Math.ceil(bits / 3));
    case 'u':
      return String(value).padStart(decimal);
    case 'c':
      return character(Number(value & 0xffn));
    default:
      // As QEMU has it, bytes and halves are never negative.
      return String(size < 4 ? value : BigInt.asIntN(bits, value)).padStart(decimal);
  }
}

async function dump(
  name: string,
  monitor: Monitor,
  words: readonly string[],
  cpu: number,
  reader: () => Promise<(at: bigint, count: number) => Promise<Uint8Array>>,
): Promise<string[]> {
  const shown = formatOf(words[0]?.startsWith('/') ? words[0] : '/');
  const [where, ...more] = words[0]?.startsWith('/') ? words.slice(1) : words;
  if (more.length > 0) throw new UsageError(`${name}: extraneous characters at the end of line`);
  const vcpu = where?.includes('$') ? (await monitor.machine.inspect()).find(({ index }) => index === cpu) : undefined;
  const registers = { ...vcpu?.registers, ...(vcpu?.registers?.rip !== undefined && { pc: vcpu.registers.rip }) };
  const start = expression(where, registers);
  const read = await reader();
  const row = shown.size === 1 ? 8 : 16;
  const rows: string[] = [];
  for (let done = 0; done < shown.count * shown.size; done += row) {
    const at = start + BigInt(done);
    const count = Math.min(row, shown.count * shown.size - done);
    const bytes = await read(at, count).catch(() => undefined);
    const place = at.toString(16).padStart(16, '0');
    if (!bytes) return [...rows, `${place}: Cannot access memory`];
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const cells = Array.from({ length: count / shown.size }, (_, index) => numberText(view, index * shown.size, shown));
    rows.push(`${place}: ${cells.join(' ')}`);
  }
  return rows;
}

export const MEMORY_ACTIONS: Readonly<Record<string, Entry>> = {
  x: {
    help: '/fmt addr -- show memory by address of a vCPU: a count, one of xduoc, one of bhwg',
    tell: (monitor, words, cpu) =>
      dump('x', monitor, words, cpu, async () => {
        const memory = await virtualMemory(monitor, cpu);
        return (at, count) => memory.read(at, count);
      }),
  },
  xp: {
    help: '/fmt addr -- show memory by guest-physical address',
    tell: (monitor, words, cpu) =>
      dump('xp', monitor, words, cpu, async () => (at, count) => monitor.machine.readMemory(Number(at), count)),
  },
};
