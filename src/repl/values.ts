/** What the REPL prints in its own way. */
import { inspect, types } from 'node:util';
import type { MachineDescription } from '../client/description.ts';
import type { GuestResult } from '../client/guest_session.ts';
import type { LiveDevice, LiveRequest } from '../client/live.ts';
import { writeNewFile } from './new_file.ts';

/**
 * A value as JSON has it, on one line: integers beyond a double's in hexadecimal, and what is no data (a function, an
 * object that leads back to itself) as it prints.
 */
export function jsonOf(value: unknown): string {
  const replace = (_key: string, each: unknown) => {
    if (typeof each === 'bigint') return Number.isSafeInteger(Number(each)) ? Number(each) : address(each);
    if (typeof each !== 'object' || each === null) return each;
    // Values of code in the REPL's own context are no instances of ours.
    if (types.isMap(each)) return [...each];
    if (types.isSet(each)) return [...each];
    if (types.isNativeError(each)) return { name: each.name, message: each.message };
    return types.isUint8Array(each) ? { hex: Buffer.from(each).toString('hex') } : each;
  };
  try {
    return JSON.stringify(value, replace) ?? JSON.stringify(inspect(value));
  } catch {
    return JSON.stringify(inspect(value));
  }
}

/** Text that the REPL prints as it is. */
export class Text {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  toString(): string {
    return this.text;
  }

  toJSON(): unknown {
    return this.text;
  }

  [inspect.custom](): string {
    return this.text;
  }
}

/** What a command in the guest gave; prints as its output. */
export class ShellResult {
  readonly status: number;
  readonly output: string;

  constructor({ status, output }: GuestResult) {
    this.status = status;
    this.output = output.toString('utf8');
  }

  toString(): string {
    return this.output;
  }

  [inspect.custom](): string {
    const text = this.output.replace(/\n$/, '');
    return this.status === 0 ? text : [text, `(status ${this.status})`].filter(Boolean).join('\n');
  }
}

/** A machine description; prints as `machine.yaml`. */
export class Description extends Text {
  readonly machine: MachineDescription;

  /** @param yaml the same as text. */
  constructor(machine: MachineDescription, yaml: string) {
    super(yaml);
    this.machine = machine;
  }

  /** Writes it into a file, which must not be there yet. @throws NemuError FILE */
  save(path: string): void {
    writeNewFile(path, this.text, 'description');
  }

  override toJSON(): MachineDescription {
    return this.machine;
  }
}

/** Hexadecimal, as addresses are written. */
export const address = (value: bigint | number) => `0x${BigInt(value).toString(16)}`;

/** Bytes that print as a hex dump. */
export class Bytes {
  readonly bytes: Uint8Array;
  readonly at: bigint;

  constructor(bytes: Uint8Array, at: bigint) {
    this.bytes = bytes;
    this.at = at;
  }

  toJSON(): object {
    return { at: address(this.at), hex: Buffer.from(this.bytes).toString('hex') };
  }

  [inspect.custom](): string {
    const rows: string[] = [];
    for (let i = 0; i < this.bytes.length; i += 16) {
      const row = Buffer.from(this.bytes.subarray(i, i + 16));
      const text = row.toString('latin1').replaceAll(/[^\x20-\x7e]/g, '.');
      const digits = row.toString('hex').replaceAll(/../g, '$& ').padEnd(48);
      rows.push(`${(this.at + BigInt(i)).toString(16).padStart(16, '0')}  ${digits} ${text}`);
    }
    return rows.join('\n');
  }
}

/** A request that is done; prints as its stages. */
export class Done {
  readonly request: LiveRequest;

  constructor(request: LiveRequest) {
    this.request = request;
  }

  get device(): LiveDevice {
    return this.request.device;
  }

  [inspect.custom](): string {
    const { action, device, history } = this.request;
    const took = Number(BigInt(history.at(-1)?.at ?? 0) - BigInt(history[0]?.at ?? 0)) / 1e6;
    return `${action} ${device.id}: ${history.map(({ stage }) => stage).join(' → ')} (${took.toFixed(0)} ms)`;
  }
}
