/** The breakpoints and watchpoints that gdb has set. */
import type { BreakpointInput, HardwareBreakpoint } from '../client/debug.ts';
import { NemuError } from '../client/errors.ts';
import type { MachineClient } from '../client/machine_client.ts';

/** Types of Z packets: GDB manual, E.2. */
const KINDS = ['software', 'execute', 'write', 'read', 'access'] as const;
const SIZES = [8, 4, 2, 1] as const;
/** Wider than four debug registers reach. */
const WIDEST = 32;

const hex = (value: bigint) => `0x${value.toString(16)}`;

/** Ranges that debug registers can have: aligned, of a size that there is. */
function pieces(kind: HardwareBreakpoint['kind'], address: bigint, length: number): HardwareBreakpoint[] {
  const out: HardwareBreakpoint[] = [];
  for (let done = 0; done < length; ) {
    const at = BigInt.asUintN(64, address + BigInt(done));
    const size = SIZES.find((each) => each <= length - done && at % BigInt(each) === 0n) ?? 1;
    out.push({ kind, address: hex(at), size });
    done += size;
  }
  return out;
}

export class Breakpoints {
  readonly #machine: MachineClient;
  /** By what gdb says of one. */
  readonly #set = new Map<string, readonly BreakpointInput[]>();

  constructor(machine: MachineClient) {
    this.#machine = machine;
  }

  /**
   * @param type of the packet, 0 to 4. @param length bytes that are watched.
   * @param physical where the instruction at an address is.
   * @throws NemuError BREAKPOINT, ADDRESS; then it is not set.
   */
  async insert(
    type: number,
    address: bigint,
    length: number,
    physical: (address: bigint) => Promise<number>,
  ): Promise<void> {
    const key = `${type} ${address} ${length}`;
    if (this.#set.has(key)) return;
    this.#set.set(key, await this.#made(KINDS[type], address, length, physical));
    try {
      await this.#tell();
    } catch (error) {
      this.#set.delete(key);
      throw error;
    }
  }

  async #made(
    kind: (typeof KINDS)[number],
    address: bigint,
    length: number,
    physical: (address: bigint) => Promise<number>,
  ): Promise<readonly BreakpointInput[]> {
    if (kind === 'software') return [{ kind, address: hex(BigInt(await physical(address))) }];
    if (kind === 'execute') return [{ kind, address: hex(address), size: 1 }];
    if (kind === 'read') {
      throw new NemuError('BREAKPOINT', 'A processor cannot stop at reads alone: awatch stops at reads and writes.');
    }
    if (length < 1 || length > WIDEST) {
      throw new NemuError('BREAKPOINT', `Debug registers watch 1 to ${WIDEST} bytes, not ${length}.`);
    }
    return pieces(kind, address, length);
  }

  async remove(type: number, address: bigint, length: number): Promise<void> {
    if (this.#set.delete(`${type} ${address} ${length}`)) await this.#tell();
  }

  #tell(): Promise<void> {
    const all = [...this.#set.values()].flat();
    // Two of gdb's may be one in memory.
    const apart = new Map(all.map((each) => [JSON.stringify(each), each]));
    return this.#machine.setBreakpoints([...apart.values()]);
  }
}
