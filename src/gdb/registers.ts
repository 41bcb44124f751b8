/** What registers there are, in the order of the target description, and how gdb writes them. */
import type { RegisterValues } from '../client/debug.ts';

export interface Register {
  readonly name: string;
  readonly bits: number;
  readonly type: string;
  readonly group?: 'float' | 'vector';
}

export interface Feature {
  readonly name: string;
  /** Definitions of types, in XML. */
  readonly types: string;
  readonly registers: readonly Register[];
}

const many = (names: readonly string[], bits: number, type: string, group?: Register['group']): Register[] =>
  names.map((name) => ({ name, bits, type, ...(group && { group }) }));
const counted = (prefix: string, count: number) => Array.from({ length: count }, (_, index) => `${prefix}${index}`);

/** `CF 0` or `IOPL 12-13`. */
function flags(id: string, size: number, fields: string): string {
  const rows = fields.split(', ').map((field) => {
    const [name, place] = field.split(' ');
    const [start, end = start] = place.split('-');
    return `<field name="${name}" start="${start}" end="${end}"/>`;
  });
  return `<flags id="${id}" size="${size}">${rows.join('')}</flags>`;
}

/** Intel SDM volume 3, 2.3 and 2.5; AMD APM volume 2, 3.1.7. */
const EFLAGS =
  'CF 0, PF 2, AF 4, ZF 6, SF 7, TF 8, IF 9, DF 10, OF 11, IOPL 12-13, NT 14, RF 16, VM 17, AC 18, VIF 19, VIP 20, ID 21';
const CR0 = 'PE 0, MP 1, EM 2, TS 3, ET 4, NE 5, WP 16, AM 18, NW 29, CD 30, PG 31';
const CR3 = 'PCID 0-11, PDBR 12-63';
const CR4 = [
  'VME 0, PVI 1, TSD 2, DE 3, PSE 4, PAE 5, MCE 6, PGE 7, PCE 8, OSFXSR 9, OSXMMEXCPT 10, UMIP 11, LA57 12, VMXE 13',
  'SMXE 14, FSGSBASE 16, PCIDE 17, OSXSAVE 18, SMEP 20, SMAP 21, PKE 22, CET 23, PKS 24',
].join(', ');
const EFER = 'SCE 0, LME 8, LMA 10, NXE 11, SVME 12, LMSLE 13, FFXSR 14, TCE 15';
const MXCSR = 'IE 0, DE 1, ZE 2, OE 3, UE 4, PE 5, DAZ 6, IM 7, DM 8, ZM 9, OM 10, UM 11, PM 12, FZ 15';

const VECTORS = [
  ...(['v4f:ieee_single:4', 'v2d:ieee_double:2', 'v16i8:int8:16', 'v8i16:int16:8', 'v4i32:int32:4'] as const),
  'v2i64:int64:2',
].map((each) => {
  const [id, type, count] = each.split(':');
  return `<vector id="${id}" type="${type}" count="${count}"/>`;
});
const VEC128 = `${VECTORS.join('')}<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>`;

/** GDB manual, G.5.8; the last one has names of QEMU's. */
export const FEATURES: readonly Feature[] = [
  {
    name: 'org.gnu.gdb.i386.core',
    types: flags('i386_eflags', 4, EFLAGS),
    registers: [
      ...many(['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi'], 64, 'int64'),
      ...many(['rbp', 'rsp'], 64, 'data_ptr'),
      ...many(counted('r', 16).slice(8), 64, 'int64'),
      ...many(['rip'], 64, 'code_ptr'),
      ...many(['eflags'], 32, 'i386_eflags'),
      ...many(['cs', 'ss', 'ds', 'es', 'fs', 'gs'], 32, 'int32'),
      ...many(counted('st', 8), 80, 'i387_ext'),
      ...many(['fctrl', 'fstat', 'ftag', 'fiseg', 'fioff', 'foseg', 'fooff', 'fop'], 32, 'int', 'float'),
    ],
  },
  {
    name: 'org.gnu.gdb.i386.sse',
    types: VEC128 + flags('i386_mxcsr', 4, MXCSR),
    registers: [...many(counted('xmm', 16), 128, 'vec128'), ...many(['mxcsr'], 32, 'i386_mxcsr', 'vector')],
  },
  {
    name: 'org.gnu.gdb.i386.segments',
    types: '',
    registers: many(['fs_base', 'gs_base'], 64, 'int64'),
  },
  {
    name: 'org.nemu.x86.system',
    types: flags('x64_cr0', 8, CR0) + flags('x64_cr3', 8, CR3) + flags('x64_cr4', 8, CR4) + flags('x64_efer', 8, EFER),
    registers: [
      ...many(['k_gs_base'], 64, 'int64'),
      ...many(['cr0'], 64, 'x64_cr0'),
      ...many(['cr2'], 64, 'int64'),
      ...many(['cr3'], 64, 'x64_cr3'),
      ...many(['cr4'], 64, 'x64_cr4'),
      ...many(['cr8'], 64, 'int64'),
      ...many(['efer'], 64, 'x64_efer'),
    ],
  },
];

/** By gdb's number. */
export const REGISTERS: readonly Register[] = FEATURES.flatMap(({ registers }) => registers);
const DIGITS = REGISTERS.reduce((sum, { bits }) => sum + bits / 4, 0);

/** A register's bytes in the order of memory, two digits each. */
export function encodeRegister({ name, bits }: Register, values: RegisterValues): string {
  const text = values[name];
  // What the machine does not have.
  if (text === undefined) return 'x'.repeat(bits / 4);
  const digits = BigInt.asUintN(bits, BigInt(text))
    .toString(16)
    .padStart(bits / 4, '0');
  return Buffer.from(digits, 'hex').reverse().toString('hex');
}

/** @param digits as many as the register has. */
const decodeValue = (digits: string): string =>
  `0x${BigInt(`0x${Buffer.from(digits, 'hex').reverse().toString('hex')}`).toString(16)}`;

/** @returns undefined for text of another length. */
export function decodeRegister({ bits }: Register, digits: string): string | undefined {
  return digits.length === bits / 4 && /^[0-9a-f]+$/i.test(digits) ? decodeValue(digits) : undefined;
}

export const encodeAll = (values: RegisterValues): string =>
  REGISTERS.map((register) => encodeRegister(register, values)).join('');

/** @returns those that are not as they were; undefined for text that is not all registers. */
export function decodeAll(digits: string, now: RegisterValues): Record<string, string> | undefined {
  if (digits.length !== DIGITS || !/^[0-9a-f]+$/i.test(digits)) return undefined;
  const changed: Record<string, string> = {};
  let at = 0;
  for (const register of REGISTERS) {
    const piece = digits.slice(at, at + register.bits / 4).toLowerCase();
    at += piece.length;
    if (piece !== encodeRegister(register, now)) changed[register.name] = decodeValue(piece);
  }
  return changed;
}

const featureXml = ({ name, types, registers }: Feature) => {
  const rows = registers.map(
    (each) =>
      `<reg name="${each.name}" bitsize="${each.bits}" type="${each.type}"${each.group ? ` group="${each.group}"` : ''}/>`,
  );
  return `<feature name="${name}">${types}${rows.join('')}</feature>`;
};

/** The target description: GDB manual, appendix G. */
export const TARGET_XML = `<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0"><architecture>i386:x86-64</architecture>${FEATURES.map(featureXml).join('')}</target>`;
