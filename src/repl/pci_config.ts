/** Configuration space in words: PCI 3.0 section 6, PCI Express 4.0 section 7. */

const CAPABILITIES: Record<number, string> = {
  1: 'Power Management',
  5: 'MSI',
  9: 'Vendor Specific',
  13: 'Subsystem',
  16: 'PCI Express',
  17: 'MSI-X',
  19: 'Advanced Features',
};
const EXTENDED: Record<number, string> = {
  1: 'Advanced Error Reporting',
  3: 'Device Serial Number',
  13: 'Access Control Services',
  14: 'ARI',
  16: 'SR-IOV',
};
const PORT_TYPES = ['Endpoint', 'Legacy Endpoint', '', '', 'Root Port', 'Upstream Port', 'Downstream Port'];
const CLASSES: Record<number, string> = {
  65536: 'SCSI controller',
  98304: 'mass storage',
  131072: 'Ethernet controller',
  393216: 'host bridge',
  393472: 'ISA bridge',
  394240: 'PCI bridge',
  425984: 'bridge',
  491520: 'communication controller',
  557056: 'system peripheral',
  65280: 'unclassified device',
};
/** Capability of a bridge that has this, and where a device has it. */
const SUBSYSTEM = 13;
const SUBSYSTEM_OF_DEVICE = 0x2c;
const MAX_CAPABILITIES = 48;
/** Bits of the command register, by lspci's names; '' for one that says nothing here. */
const COMMAND_BITS = ['I/O', 'Mem', 'BusMaster', '', '', '', 'ParErr', '', 'SERR', '', 'DisINTx'];

export interface Capability {
  readonly offset: number;
  readonly id: number;
  readonly extended: boolean;
  readonly name: string;
}

export class ConfigView {
  readonly bytes: Buffer;

  /** @param base64 of up to 4096 bytes. */
  constructor(base64: string) {
    this.bytes = Buffer.from(base64, 'base64');
  }

  get vendor(): number {
    return this.bytes.readUInt16LE(0);
  }

  get device(): number {
    return this.bytes.readUInt16LE(2);
  }

  get revision(): number {
    return this.bytes[8];
  }

  /** Vendor and device of the board: of a bridge, in a capability. */
  get subsystem(): { readonly vendor: number; readonly device: number } | undefined {
    const capability = this.capabilities.find(({ id, extended }) => id === SUBSYSTEM && !extended);
    if (this.isBridge && !capability) return undefined;
    const at = this.isBridge && capability ? capability.offset + 4 : SUBSYSTEM_OF_DEVICE;
    const [vendor, device] = [this.bytes.readUInt16LE(at), this.bytes.readUInt16LE(at + 2)];
    return vendor === 0 ? undefined : { vendor, device };
  }

  /** 0xBBSSPP. */
  get classCode(): number {
    return this.bytes.readUIntLE(9, 3);
  }

  get className(): string {
    return CLASSES[this.classCode & 0xffff00] ?? `class ${hex(this.classCode, 6)}`;
  }

  get isBridge(): boolean {
    return (this.bytes[0x0e] & 0x7f) === 1;
  }

  /** What the command and status registers say, by the names that lspci(8) has. */
  get command(): string {
    return flags(this.bytes.readUInt16LE(4), COMMAND_BITS);
  }

  /** Both lists; one that loops ends. */
  get capabilities(): Capability[] {
    const found: Capability[] = [];
    if (this.bytes.readUInt16LE(6) & 0x10) {
      const seen = new Set<number>();
      for (let at = this.bytes[0x34] & ~3; at >= 0x40 && !seen.has(at); at = this.bytes[at + 1] & ~3) {
        seen.add(at);
        const id = this.bytes[at];
        found.push({ offset: at, id, extended: false, name: this.#name(at, id) });
      }
    }
    for (let at = 0x100; at >= 0x100 && at <= this.bytes.length - 4 && found.length < MAX_CAPABILITIES; ) {
      const header = this.bytes.readUInt32LE(at);
      if (header === 0 || header === 0xffffffff) break;
      const id = header & 0xffff;
      found.push({ offset: at, id, extended: true, name: EXTENDED[id] ?? `extended capability ${hex(id, 4)}` });
      const next = (header >>> 20) & ~3;
      if (next <= at) break;
      at = next;
    }
    return found;
  }

  #name(at: number, id: number): string {
    const name = CAPABILITIES[id] ?? `capability ${hex(id, 2)}`;
    if (id === 0x10) {
      const type = (this.bytes.readUInt16LE(at + 2) >> 4) & 15;
      return `${name}: ${type === 9 ? 'Root Complex Integrated Endpoint' : (PORT_TYPES[type] ?? `type ${type}`)}`;
    }
    if (id === 0x11) {
      const control = this.bytes.readUInt16LE(at + 2);
      return `${name}: ${(control & 0x7ff) + 1} vectors, ${control & 0x8000 ? 'enabled' : 'off'}${control & 0x4000 ? ', all masked' : ''}`;
    }
    return name;
  }

  /** The interrupt pin, the line that the guest's firmware or kernel noted, and how it stands; undefined without a pin. */
  get intx(): { readonly pin: string; readonly line?: number; readonly state: string } | undefined {
    const [line, pin] = [this.bytes[0x3c], this.bytes[0x3d]];
    if (pin < 1 || pin > 4) return undefined;
    const off = (this.bytes.readUInt16LE(4) & 0x400) !== 0;
    const pending = (this.bytes.readUInt16LE(6) & 8) !== 0;
    return {
      pin: `INT${'ABCD'[pin - 1]}`,
      // 255 stands for none, and is what is there when nobody wrote it on a PC.
      ...(line !== 0xff && { line }),
      state: [...(off ? ['off'] : []), ...(pending ? ['pending'] : [])].join(', '),
    };
  }

  /** What it is, in the words of the first 64 bytes. */
  get identity(): string[] {
    const { vendor, device, revision, subsystem, intx, classCode } = this;
    const line = intx?.line === undefined ? '' : `, line ${intx.line}`;
    return [
      `vendor ${hex(vendor, 4)}, device ${hex(device, 4)}, revision ${hex(revision, 2)}`,
      `class ${hex(classCode, 6)}`,
      ...(subsystem ? [`subsystem: vendor ${hex(subsystem.vendor, 4)}, device ${hex(subsystem.device, 4)}`] : []),
      `interrupt: ${intx ? `pin ${intx.pin}${line}${intx.state === '' ? '' : `, ${intx.state}`}` : 'no pin'}`,
    ];
  }

  /** Slot state of a hot-plug port; undefined where there is no slot. */
  get slot(): string | undefined {
    const express = this.capabilities.find(({ id, extended }) => id === 0x10 && !extended)?.offset;
    if (express === undefined || !(this.bytes.readUInt16LE(express + 2) & 0x100)) return undefined;
    const control = this.bytes.readUInt16LE(express + 0x18);
    const status = this.bytes.readUInt16LE(express + 0x1a);
    const link = this.bytes.readUInt16LE(express + 0x12);
    const indicator = ['', 'on', 'blinking', 'off'][(control >> 8) & 3];
    const number = this.bytes.readUInt32LE(express + 0x14) >>> 19;
    return [
      `slot ${number} ${status & 0x40 ? 'occupied' : 'empty'}`,
      `power ${control & 0x400 ? 'off' : 'on'}`,
      ...(indicator ? [`indicator ${indicator}`] : []),
      `link ${link & 0x2000 ? 'up' : 'down'}`,
    ].join(', ');
  }

  /** Bytes in rows of 16, as far as there is something. */
  dump(): string {
    let end = 64;
    for (let i = 64; i < this.bytes.length; i++) if (this.bytes[i] !== 0) end = (i | 15) + 1;
    const rows: string[] = [];
    for (let at = 0; at < end; at += 16) {
      rows.push(
        `${at.toString(16).padStart(3, '0')}: ${this.bytes
          .subarray(at, at + 16)
          .toString('hex')
          .replaceAll(/../g, '$& ')
          .trim()}`,
      );
    }
    return rows.join('\n');
  }
}

const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');

function flags(value: number, names: readonly string[]): string {
  return names.flatMap((name, bit) => (name ? [`${name}${value & (1 << bit) ? '+' : '-'}`] : [])).join(' ');
}
