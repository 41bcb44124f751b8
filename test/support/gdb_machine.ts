/** A machine that a debugger can drive, without a processor: each byte of its memory is an instruction that does nothing. */
import { type BreakpointInput, type DebugRunInput, parseBreakpoints, parseDebugRun } from '../../src/client/debug.ts';
import { NemuError } from '../../src/client/errors.ts';
import type { MachineClient, MachineEvent, MachineState } from '../../src/client/machine_client.ts';
import { REGISTERS } from '../../src/gdb/registers.ts';

export const SIZE = 0x10_0000;
const hex = (value: number) => `0x${value.toString(16)}`;

export class GdbMachine {
  readonly memory = Buffer.alloc(SIZE, 0x90);
  readonly registers: Record<string, string>[];
  readonly calls: string[] = [];
  state: MachineState = 'running';
  breakpoints: BreakpointInput[] = [];
  attached = false;
  readonly #listeners = new Set<(event: MachineEvent) => void>();

  constructor(vcpus = 2) {
    const zeros = Object.fromEntries(REGISTERS.map(({ name }) => [name, '0x0']));
    this.registers = Array.from({ length: vcpus }, (_, index) => ({ ...zeros, rip: hex(0x1000 * (index + 1)) }));
  }

  get client(): MachineClient {
    return this as unknown as MachineClient;
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  onEvent(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #emit(event: MachineEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  setState(state: MachineState): void {
    this.state = state;
    this.#emit({ type: 'state', state });
  }

  pause = async (): Promise<void> => {
    this.calls.push('pause');
    if (this.state === 'running') this.setState('paused');
  };

  resume = async (): Promise<void> => {
    this.calls.push('resume');
    this.setState('running');
  };

  start = async (): Promise<void> => {
    this.calls.push('start');
    this.setState('running');
  };

  plugged = async () => ({ cpus: { present: this.registers.map((_, index) => ({ index })) } });
  inspect = async () => this.registers.map((_, index) => ({ index, state: 'paused', activity: 'running' }));
  vmcoreinfo = async () => undefined;

  readMemory = async (address: number, length: number): Promise<Uint8Array> => {
    this.#require(address, length);
    return Buffer.from(this.memory.subarray(address, address + length));
  };

  writeMemory = async (address: number, bytes: Uint8Array): Promise<void> => {
    this.#require(address, bytes.length);
    this.memory.set(bytes, address);
  };

  #require(address: number, length: number): void {
    if (address + length > SIZE) throw new NemuError('ADDRESS', `${hex(address)} is not RAM of this machine.`);
  }

  readRegisters = async (vcpu: number) => {
    if (!this.registers[vcpu]) throw new NemuError('VCPU', `There is no vCPU ${vcpu}.`);
    return { ...this.registers[vcpu] };
  };

  writeRegisters = async (vcpu: number, values: Record<string, string>): Promise<void> => {
    this.calls.push(`write ${vcpu} ${JSON.stringify(values)}`);
    Object.assign(this.registers[vcpu], values);
  };

  attachDebugger = async (): Promise<void> => {
    if (this.attached) throw new NemuError('DEBUGGER', 'Another debugger is attached to this machine.');
    this.attached = true;
  };

  detachDebugger = async (): Promise<void> => {
    this.calls.push('detach');
    this.attached = false;
    this.breakpoints = [];
    if (this.state === 'paused') this.setState('running');
  };

  setBreakpoints = async (breakpoints: BreakpointInput[]): Promise<void> => {
    const all = parseBreakpoints(breakpoints);
    if (all.filter(({ kind }) => kind !== 'software').length > 4) {
      throw new NemuError('BREAKPOINT', 'A processor has 4 debug registers, and more are asked for.');
    }
    this.breakpoints = all;
  };

  debugRun = async (input: DebugRunInput = {}): Promise<void> => {
    const { vcpus, step } = parseDebugRun(input);
    this.calls.push(`run ${JSON.stringify({ ...(vcpus && { vcpus }), step })}`);
    this.setState('running');
    const [stepped] = step;
    if (stepped !== undefined) {
      const rip = Number(this.registers[stepped].rip) + 1;
      this.registers[stepped].rip = hex(rip);
      this.#emit({ type: 'debug', vcpu: stepped, reason: 'step', address: hex(rip) });
      this.setState('paused');
      return;
    }
    for (const vcpu of vcpus ?? this.registers.keys()) {
      const rip = Number(this.registers[vcpu].rip);
      const hit = this.breakpoints.find(
        ({ kind, address }) => (kind === 'software' || kind === 'execute') && Number(address) >= rip,
      );
      if (!hit) continue;
      this.registers[vcpu].rip = hit.address;
      const reason = hit.kind === 'software' ? 'breakpoint' : 'execute';
      this.#emit({ type: 'debug', vcpu, reason, address: hit.address });
      this.setState('paused');
      return;
    }
  };
}
