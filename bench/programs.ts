/** The two programs that are compared, as a user starts them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const nemu = fileURLToPath(new URL('../bin/nemu', import.meta.url));

/** QEMU with the least that runs `image`, its serial port on standard output. */
export function qemuArguments(machine: 'q35' | 'microvm', image: string, more: readonly string[] = []): string[] {
  return [
    // What a KVM that is itself a guest says of this register, it may not let QEMU write.
    ...[
      '-accel',
      'kvm',
      '-machine',
      machine,
      '-cpu',
      'host,arch-capabilities=off',
      '-nodefaults',
      '-no-user-config',
      '-display',
      'none',
    ],
    ...['-serial', 'stdio', '-no-reboot', '-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-kernel', image, ...more],
  ];
}

/** Our command line for the same guest. `--initrd` leaves our own initramfs out. */
export const nemuArguments = (image: string, more: readonly string[] = []): string[] => [
  ...['run', '--on', 'kvm', '--debug-exit', '--initrd', '/dev/null', '--net', 'none', ...more, image],
];

/** A process with its standard output on a pipe. */
export class Run {
  readonly child: ChildProcess;
  readonly started = performance.now();
  readonly exited: Promise<number>;
  output = Buffer.alloc(0);
  /** Milliseconds from the start to the first byte of output. */
  firstByte: number | undefined;
  errors = '';
  #waiters: (() => void)[] = [];

  constructor(command: string, args: readonly string[]) {
    this.child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.child.stdout?.on('data', (bytes: Buffer) => {
      this.firstByte ??= performance.now() - this.started;
      this.output = Buffer.concat([this.output, bytes]);
      for (const wake of this.#waiters.splice(0)) wake();
    });
    this.child.stderr?.on('data', (bytes: Buffer) => {
      this.errors += bytes;
    });
    this.exited = new Promise((resolve, reject) => {
      this.child.on('error', reject);
      this.child.on('close', (status) => {
        for (const wake of this.#waiters.splice(0)) wake();
        resolve(status ?? 128);
      });
    });
  }

  /** Waits until `count` bytes have come. @throws Error with what the program complained about. */
  async bytes(count: number): Promise<Buffer> {
    while (this.output.length < count) {
      if (this.child.exitCode !== null || this.child.signalCode !== null) {
        throw new Error(`${this.child.spawnargs.join(' ')}\nended after ${this.output.length} bytes: ${this.errors}`);
      }
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
    return this.output;
  }

  async kill(): Promise<void> {
    this.child.kill('SIGTERM');
    await this.exited;
  }
}
