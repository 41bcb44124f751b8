/** The guest's ACPI tables, found in its memory as a kernel finds them, and as readable ASL. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect, promisify } from 'node:util';
import { NemuError } from '../client/errors.ts';
import type { MachineClient } from '../client/machine_client.ts';
import { address, Bytes, Text } from './values.ts';

/** Where an RSDP stands that no firmware tells of (ACPI specification 6.4, section 5.2.5.1). */
const BIOS_AREA = { base: 0xe0000, size: 0x20000 };
const RSDP_SIGNATURE = 'RSD PTR ';
const RSDP_ALIGNMENT = 16;
const RSDP_XSDT = 24;
const HEADER_SIZE = 36;
/** Of the FADT: 64-bit addresses of the FACS and the DSDT, and the 32-bit ones that they replace. */
const FADT = { FACS: 36, DSDT: 40, X_FACS: 132, X_DSDT: 140 };
/** A guest may write what it likes over its tables: no table of real machines is larger. */
const MAX_TABLE = 128 << 10;
const MAX_TABLES = 256;

const run = promisify(execFile);

export class AcpiTable {
  readonly signature: string;
  /** Guest-physical. */
  readonly address: number;
  readonly bytes: Buffer;

  constructor(signature: string, at: number, bytes: Buffer) {
    this.signature = signature;
    this.address = at;
    this.bytes = bytes;
  }

  get revision(): number {
    return this.bytes[8];
  }

  get oemId(): string {
    return this.signature === 'FACS' ? '' : this.bytes.toString('latin1', 10, 16).trimEnd();
  }

  /** The FACS has no checksum. */
  get valid(): boolean {
    return this.signature === 'FACS' || (this.bytes.reduce((sum, byte) => sum + byte, 0) & 0xff) === 0;
  }

  dump(): Bytes {
    return new Bytes(this.bytes, BigInt(this.address));
  }

  /**
   * The table in words: AML as ASL, others field by field, by ACPICA's disassembler.
   * @throws NemuError IASL when this machine does not have it, or it cannot read the table.
   */
  async asl(): Promise<Text> {
    const folder = await mkdtemp(join(tmpdir(), 'nemu-acpi-'));
    try {
      await writeFile(join(folder, 'table.dat'), this.bytes);
      await run('iasl', ['-d', 'table.dat'], { cwd: folder }).catch(
        (cause: NodeJS.ErrnoException & { stderr?: string }) => {
          if (cause.code === 'ENOENT') {
            throw new NemuError('IASL', 'ACPI tables are put into words by the program iasl, which is not here.', {
              hint: 'Debian has it in acpica-tools: apt-get install acpica-tools. table.dump() shows the bytes.',
            });
          }
          throw new NemuError(
            'IASL',
            `iasl cannot read this ${this.signature}: ${cause.stderr?.trim() || cause.message}`,
            {
              cause,
            },
          );
        },
      );
      const text = await readFile(join(folder, 'table.dsl'), 'utf8');
      // What it says of itself and of the file is of no use here.
      return new Text(text.replace(/^\/\*[\s\S]*?\*\/\s*/, '').trimEnd());
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  [inspect.custom](): string {
    const checksum = this.valid ? '' : ', checksum wrong';
    return `${this.signature} revision ${this.revision}: ${this.bytes.length} bytes at ${address(this.address)}${checksum}`;
  }
}

/**
 * Every table that the RSDP leads to.
 * @throws NemuError ACPI when there is none in the guest's memory any more.
 */
export async function acpiTables(machine: MachineClient): Promise<AcpiTable[]> {
  const area = Buffer.from(await machine.readMemory(BIOS_AREA.base, BIOS_AREA.size));
  let rsdp = -1;
  for (let at = 0; at < area.length && rsdp < 0; at += RSDP_ALIGNMENT) {
    if (area.toString('latin1', at, at + 8) === RSDP_SIGNATURE) rsdp = at;
  }
  if (rsdp < 0) {
    throw new NemuError('ACPI', `There is no RSDP between ${address(BIOS_AREA.base)} and 0xfffff.`, {
      hint: 'The machine has its tables there when it starts; the guest has written over them.',
    });
  }
  const xsdt = await readTable(machine, Number(area.readBigUInt64LE(rsdp + RSDP_XSDT)));
  const entries = Math.min(MAX_TABLES, Math.floor((xsdt.bytes.length - HEADER_SIZE) / 8));
  const found = [xsdt];
  for (let i = 0; i < entries; i++) {
    const table = await readTable(machine, Number(xsdt.bytes.readBigUInt64LE(HEADER_SIZE + 8 * i)));
    found.push(table);
    if (table.signature !== 'FACP') continue;
    for (const [wide, narrow] of [[FADT.X_DSDT, FADT.DSDT] as const, [FADT.X_FACS, FADT.FACS] as const]) {
      const { bytes } = table;
      const at = bytes.length >= wide + 8 ? Number(bytes.readBigUInt64LE(wide)) : 0;
      const place = at !== 0 ? at : bytes.length >= narrow + 4 ? bytes.readUInt32LE(narrow) : 0;
      if (place !== 0) found.push(await readTable(machine, place));
    }
  }
  return found;
}

async function readTable(machine: MachineClient, at: number): Promise<AcpiTable> {
  const header = Buffer.from(await machine.readMemory(at, 8));
  const signature = header.toString('latin1', 0, 4);
  const length = header.readUInt32LE(4);
  if (!/^[A-Z0-9_]{4}$/.test(signature) || length < HEADER_SIZE || length > MAX_TABLE) {
    throw new NemuError('ACPI', `There is no ACPI table at ${address(at)}, where another one says that there is.`);
  }
  return new AcpiTable(signature, at, Buffer.from(await machine.readMemory(at, length)));
}
