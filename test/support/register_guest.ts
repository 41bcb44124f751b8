/**
 * A micro-guest that does what the test tells it, one register access at a time: so a test can play a guest's
 * driver, a good one or a bad one, against a real machine.
 */
import type { MachineInput } from '../../src/client/description.ts';
import type { MachineClient } from '../../src/client/machine_client.ts';
import { LSR, type MicroGuest, THR } from './micro.ts';

const BUFFER = 0x50_0000;
const COMMAND = 12;
const OP = { out8: 1, in8: 2, out32: 3, in32: 4, wrmsr: 5, store8: 6 } as const;

type Boot = (
  code: (asm: import('../../src/vmm/x86/assembler.ts').Assembler) => void,
  more?: Partial<MachineInput>,
) => Promise<MicroGuest>;

export class RegisterGuest {
  readonly machine: MachineClient;
  readonly #guest: MicroGuest;
  #answers = 0;

  private constructor(guest: MicroGuest) {
    this.#guest = guest;
    this.machine = guest.machine;
  }

  static async start(boot: Boot, more: Partial<MachineInput>): Promise<RegisterGuest> {
    const guest = await boot((asm) => {
      asm.label('next').movImm('rsi', BUFFER).movImm('rbx', 0);
      asm.label('byte').movImm('rdx', LSR).in(1).andImm('rax', 1).jumpIf('z', 'byte');
      asm.movImm('rdx', THR).movImm('rax', 0).in(1).storeSized(1, 'rsi', 0, 'rax');
      asm.addImm('rsi', 1).addImm('rbx', 1).cmpImm('rbx', COMMAND).jumpIf('nz', 'byte');
      // A command: operation, port at 2, value at 4, high value or address at 8.
      asm.movImm('rsi', BUFFER).loadSized(1, 'rbx', 'rsi', 0).loadSized(2, 'rdx', 'rsi', 2);
      asm.loadSized(4, 'rax', 'rsi', 4).loadSized(4, 'rdi', 'rsi', 8);
      asm.cmpImm('rbx', OP.out8).jumpIf('nz', '2').out(1).jump('answer');
      asm.label('2').cmpImm('rbx', OP.in8).jumpIf('nz', '3').movImm('rax', 0).in(1).jump('answer');
      asm.label('3').cmpImm('rbx', OP.out32).jumpIf('nz', '4').out(4).jump('answer');
      asm.label('4').cmpImm('rbx', OP.in32).jumpIf('nz', '5').in(4).jump('answer');
      asm.label('5').cmpImm('rbx', OP.wrmsr).jumpIf('nz', '6');
      asm.mov('rcx', 'rdx').mov('rdx', 'rdi').wrmsr().jump('answer');
      asm.label('6').storeSized(1, 'rdi', 0, 'rax');
      asm.label('answer').storeSized(4, 'rsi', 0, 'rax').movImm('rdx', THR);
      for (let i = 0; i < 4; i++) asm.loadSized(1, 'rax', 'rsi', i).out(1);
      asm.jump('next');
    }, more);
    const made = new RegisterGuest(guest);
    await made.machine.start();
    return made;
  }

  async #command(op: number, port: number, value: number, high: number): Promise<number> {
    const command = Buffer.alloc(COMMAND);
    command[0] = op;
    command.writeUInt16LE(port, 2);
    command.writeUInt32LE(value >>> 0, 4);
    command.writeUInt32LE(high >>> 0, 8);
    this.machine.console('com1').write(command);
    const end = 4 * ++this.#answers;
    await this.#guest.reached(end);
    return Buffer.from(this.#guest.output.slice(end - 4, end), 'latin1').readUInt32LE(0);
  }

  out8 = (port: number, value: number) => this.#command(OP.out8, port, value, 0);
  in8 = (port: number) => this.#command(OP.in8, port, 0, 0);
  out32 = (port: number, value: number) => this.#command(OP.out32, port, value, 0);
  in32 = (port: number) => this.#command(OP.in32, port, 0, 0);

  /** Writes an MSR below 0x10000. */
  wrmsr = (msr: number, low: number, high = 0) => this.#command(OP.wrmsr, msr, low, high);

  store8 = (address: number, value: number) => this.#command(OP.store8, 0, value, address);

  /** After a reset the guest starts anew: what it still had to say is not to be mistaken for an answer. */
  forget(): void {
    this.#answers = Math.ceil(this.#guest.output.length / 4);
  }
}
