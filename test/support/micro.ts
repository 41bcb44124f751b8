/** Micro-guests: a few dozen instructions on a real KVM, the host's or the lab's. */
import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { openPlace, type Place } from '../../src/cli/place.ts';
import { type MachineInput, parseMachine } from '../../src/client/description.ts';
import type { MachineClient } from '../../src/client/machine_client.ts';
import type { MachineOptions } from '../../src/vmm/machine_options.ts';
import { Assembler, elf64 } from '../../src/vmm/x86/assembler.ts';

export const THR = 0x3f8;
export const LSR = 0x3fd;
export const DEBUG_EXIT = 0xf4;
export const CODE = 0x10_0000;

/** May this process use /dev/kvm? With NEMU_TEST_ON=lab the tests do as if not. */
export const hostHasKvm = (() => {
  if (process.env.NEMU_TEST_ON === 'lab') return false;
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
})();

/** Where this file's micro-guests run: the host's KVM, or else a lab that the file shares. */
export function microPlace(onHost = hostHasKvm): {
  boot(code: (asm: Assembler) => void, more?: Partial<MachineInput>, options?: MachineOptions): Promise<MicroGuest>;
} {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-micro-'));
  let place: Promise<Place> | undefined;
  let count = 0;
  const guests: MachineClient[] = [];
  afterAll(async () => {
    for (const machine of guests) await machine.close();
    await (await place)?.close();
    rmSync(folder, { recursive: true });
  });
  return {
    async boot(code, more = {}, options) {
      place ??= openPlace(onHost ? 'kvm' : 'lab');
      const asm = new Assembler(CODE);
      asm.cli().movImm('rsp', 0x9_0000);
      code(asm);
      const kernel = join(folder, `guest-${count++}.elf`);
      writeFileSync(kernel, elf64(asm.assemble(), CODE));
      const machine = await (await place).create(
        parseMachine({
          name: 'micro',
          memory: { size: '16M' },
          kernel: { image: kernel },
          debugExit: true,
          onReset: 'stop',
          ...more,
        }),
        options,
      );
      guests.push(machine);
      return new MicroGuest(machine);
    },
  };
}

/** A machine whose first serial port is collected. */
export class MicroGuest {
  readonly machine: MachineClient;
  #output = '';
  #waiters: (() => void)[] = [];

  constructor(machine: MachineClient) {
    this.machine = machine;
    machine.console('com1').onData = (bytes) => {
      this.#output += Buffer.from(bytes).toString('latin1');
      for (const wake of this.#waiters.splice(0)) wake();
    };
  }

  get output(): string {
    return this.#output;
  }

  /** Resolves once the guest has printed this many bytes. */
  async reached(bytes: number): Promise<void> {
    while (this.#output.length < bytes) await new Promise<void>((resolve) => this.#waiters.push(resolve));
  }

  /** Resolves once the guest has printed `text`. The test's own time limit is the limit. */
  async printed(text: string): Promise<void> {
    while (!this.#output.includes(text)) await new Promise<void>((resolve) => this.#waiters.push(resolve));
  }
}
