/** What the kernel says of its own types: Documentation/bpf/btf.rst, include/uapi/linux/btf.h. */
import { NemuError } from '../errors.ts';

const MAGIC = 0xeb9f;
const KIND_STRUCT = 4;
const KIND_UNION = 5;
const MAX_TYPES = 1 << 22;
/** Anonymous structures within one; the kernel's largest has some dozens. */
const MAX_WITHIN = 1000;

/** Bytes that follow a type's twelve, by kind, of `vlen` members. */
const MORE: Readonly<Record<number, (vlen: number) => number>> = {
  1: () => 4, // INT
  2: () => 0, // PTR
  3: () => 12, // ARRAY
  4: (vlen) => vlen * 12, // STRUCT
  5: (vlen) => vlen * 12, // UNION
  6: (vlen) => vlen * 8, // ENUM
  7: () => 0, // FWD
  8: () => 0, // TYPEDEF
  9: () => 0, // VOLATILE
  10: () => 0, // CONST
  11: () => 0, // RESTRICT
  12: () => 0, // FUNC
  13: (vlen) => vlen * 8, // FUNC_PROTO
  14: () => 4, // VAR
  15: (vlen) => vlen * 12, // DATASEC
  16: () => 0, // FLOAT
  17: () => 4, // DECL_TAG
  18: () => 0, // TYPE_TAG
  19: (vlen) => vlen * 12, // ENUM64
};

interface Member {
  readonly name: string;
  readonly type: number;
  /** Bytes from the structure's start. */
  readonly offset: number;
}

interface Struct {
  readonly name: string;
  readonly size: number;
  readonly members: readonly Member[];
}

/** A structure's layout; offsets in bytes. */
export interface Layout {
  readonly size: number;
  /** Offset of a member, those of anonymous members within among them; undefined when there is none. */
  readonly offset: (member: string) => number | undefined;
}

export class Btf {
  readonly #data: DataView;
  readonly #bytes: Uint8Array;
  readonly #strings: number;
  readonly #stringsEnd: number;
  /** Where each type begins; type 0 is void. */
  readonly #types: number[] = [-1];

  /**
   * @param bytes from the header on.
   * @throws NemuError BTF when it is damaged.
   */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < 24 || this.#data.getUint16(0, true) !== MAGIC) throw damaged('it does not begin with 0xeb9f');
    const header = this.#data.getUint32(4, true);
    const [types, typesSize] = [header + this.#data.getUint32(8, true), this.#data.getUint32(12, true)];
    this.#strings = header + this.#data.getUint32(16, true);
    this.#stringsEnd = this.#strings + this.#data.getUint32(20, true);
    const end = types + typesSize;
    if (end > bytes.length || this.#stringsEnd > bytes.length) throw damaged('its parts are longer than it is');
    for (let at = types; at < end; ) {
      if (at + 12 > end || this.#types.length > MAX_TYPES) throw damaged(`type ${this.#types.length} is cut off`);
      this.#types.push(at);
      const { kind, vlen } = this.#info(at);
      const more = MORE[kind];
      if (!more) throw damaged(`type ${this.#types.length - 1} is of kind ${kind}`);
      at += 12 + more(vlen);
      if (at > end) throw damaged(`type ${this.#types.length - 1} is cut off`);
    }
  }

  #info(at: number): { kind: number; vlen: number; bitfields: boolean } {
    const info = this.#data.getUint32(at + 4, true);
    return { kind: (info >>> 24) & 0x1f, vlen: info & 0xffff, bitfields: info >>> 31 === 1 };
  }

  #string(offset: number): string {
    const start = this.#strings + offset;
    if (start >= this.#stringsEnd) return '';
    const end = this.#bytes.indexOf(0, start);
    return Buffer.from(this.#bytes.subarray(start, Math.min(end < 0 ? this.#stringsEnd : end, start + 512))).toString(
      'latin1',
    );
  }

  #struct(id: number): Struct | undefined {
    const at = this.#types[id];
    if (at === undefined || at < 0) return undefined;
    const { kind, vlen, bitfields } = this.#info(at);
    if (kind !== KIND_STRUCT && kind !== KIND_UNION) return undefined;
    const members = Array.from({ length: vlen }, (_, i): Member => {
      const member = at + 12 + i * 12;
      const bits = this.#data.getUint32(member + 8, true);
      return {
        name: this.#string(this.#data.getUint32(member, true)),
        type: this.#data.getUint32(member + 4, true),
        offset: (bitfields ? bits & 0xffffff : bits) >>> 3,
      };
    });
    return { name: this.#string(this.#data.getUint32(at, true)), size: this.#data.getUint32(at + 8, true), members };
  }

  /** A structure by its name; undefined when the kernel has none, or only names it. */
  struct(name: string): Layout | undefined {
    for (let id = 1; id < this.#types.length; id++) {
      const at = this.#types[id];
      if (this.#info(at).kind !== KIND_STRUCT || this.#string(this.#data.getUint32(at, true)) !== name) continue;
      const found = this.#struct(id);
      if (found) return { size: found.size, offset: (member) => this.#offset(found, member, new Set([id])) };
    }
    return undefined;
  }

  /** @param seen types that were looked into, of which none has it: damaged ones may be within each other. */
  #offset(struct: Struct, name: string, seen: Set<number>): number | undefined {
    for (const member of struct.members) {
      if (member.name === name) return member.offset;
      if (member.name !== '' || seen.has(member.type) || seen.size >= MAX_WITHIN) continue;
      seen.add(member.type);
      const within = this.#struct(member.type);
      const offset = within && this.#offset(within, name, seen);
      if (offset !== undefined) return member.offset + offset;
    }
    return undefined;
  }
}

const damaged = (why: string) => new NemuError('BTF', `The kernel's types (BTF) cannot be read: ${why}.`);
