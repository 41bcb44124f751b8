/** The kernel's description of itself: include/linux/vmcore_info.h, Documentation/admin-guide/kdump/vmcoreinfo.rst. */
import { NemuError } from '../errors.ts';

/** Where the kernel image is mapped, on x86-64: Documentation/arch/x86/x86_64/mm.rst. */
const START_KERNEL_MAP = 0xffffffff80000000n;

export class VmcoreInfo {
  readonly #values: ReadonlyMap<string, string>;

  /**
   * @param note an ELF note: name size, descriptor size and type (32 bits each), the name, the text.
   * @throws NemuError VMCOREINFO when it is none.
   */
  constructor(note: Uint8Array) {
    const view = new DataView(note.buffer, note.byteOffset, note.byteLength);
    if (note.length < 12) throw damaged(`it has ${note.length} bytes`);
    const [nameSize, size] = [view.getUint32(0, true), view.getUint32(4, true)];
    const start = 12 + Math.ceil(nameSize / 4) * 4;
    if (nameSize > 256 || start + size > note.length) throw damaged(`its sizes are ${nameSize} and ${size}`);
    const text = Buffer.from(note.subarray(start, start + size)).toString('latin1');
    this.#values = new Map(
      text.split('\n').flatMap((line) => {
        const at = line.indexOf('=');
        return at > 0 ? [[line.slice(0, at), line.slice(at + 1).replace(/\0+$/, '')] as const] : [];
      }),
    );
  }

  get release(): string {
    return this.#values.get('OSRELEASE') ?? 'unknown';
  }

  /** All of it, as the kernel says it. */
  get entries(): ReadonlyMap<string, string> {
    return this.#values;
  }

  #read(key: string, what: string, radix: 10 | 16): bigint {
    const text = this.#values.get(key);
    if (text === undefined || !(radix === 16 ? /^[0-9a-f]{1,16}$/i : /^-?\d{1,20}$/).test(text)) {
      throw new NemuError(
        'VMCOREINFO',
        `The guest's kernel (${this.release}) does not say ${what}: ${key} is ${text ?? 'not there'}.`,
      );
    }
    return BigInt(radix === 16 ? `0x${text}` : text);
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  /** Virtual address of a symbol. */
  symbol(name: string): bigint {
    return this.#read(`SYMBOL(${name})`, `where ${name} is`, 16);
  }

  /** Bytes of a structure. */
  size(name: string): number {
    return Number(this.#read(`SIZE(${name})`, `how large ${name} is`, 10));
  }

  /** Bytes from the start of a structure to a member. */
  offset(member: string): number {
    return Number(this.#read(`OFFSET(${member})`, `where ${member} is`, 10));
  }

  number(name: string): bigint {
    return this.#read(`NUMBER(${name})`, `what ${name} is`, 10);
  }

  /** Physical address of the page table that the kernel's own threads use, and its levels. */
  get pageTable(): { root: number; levels: 4 | 5 } {
    const root = this.symbol('swapper_pg_dir') - START_KERNEL_MAP + this.number('phys_base');
    if (root < 0n || root > 1n << 52n || root & 0xfffn) throw damaged(`its page table is at 0x${root.toString(16)}`);
    const levels = this.has('NUMBER(pgtable_l5_enabled)') && this.number('pgtable_l5_enabled') === 1n ? 5 : 4;
    return { root: Number(root), levels };
  }
}

const damaged = (why: string) => new NemuError('VMCOREINFO', `The guest's VMCOREINFO note is damaged: ${why}.`);
