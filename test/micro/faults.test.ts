import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Assembler, elf64 } from '../../src/vmm/x86/assembler.ts';
import { CODE, hostHasKvm } from '../support/micro.ts';

const child = fileURLToPath(new URL('../support/fault_child.ts', import.meta.url));
/** From the fault to the end of the process; the bound that DESIGN sets. */
const LIMIT_MS = 1000;

let folder: string;
let kernel: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-faults-'));
  kernel = join(folder, 'loop.elf');
  // Half the time in the guest, half in an exit that is forwarded.
  const asm = new Assembler(CODE).cli().label('loop').movImm('rdx', 0x80).in(1).jump('loop');
  writeFileSync(kernel, elf64(asm.assemble(), CODE));
});
afterAll(() => rmSync(folder, { recursive: true }));

interface Outcome {
  code: number | null;
  signal: string | null;
  output: string;
  /** Milliseconds from the moment that the machine ran to the end of the process. */
  took: number;
}

function run(fault: string, whenRunning: (pid: number) => void = () => {}): Promise<Outcome> {
  return new Promise((resolve) => {
    const process_ = spawn(process.execPath, [child, fault, kernel], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let running = 0;
    const take = (bytes: Buffer) => {
      output += bytes;
      if (!running && output.includes('running\n')) {
        running = performance.now();
        whenRunning(process_.pid as number);
      }
    };
    process_.stdout.on('data', take);
    process_.stderr.on('data', take);
    const killer = setTimeout(() => process_.kill('SIGKILL'), 15_000);
    process_.on('close', (code, signal) => {
      clearTimeout(killer);
      resolve({ code, signal, output, took: performance.now() - running });
    });
  });
}

/** Processes that run the child script, by their command line. */
function survivors(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(kernel);
      } catch {
        return false;
      }
    });
}

describe.skipIf(!hostHasKvm)('whatever ends, the process ends (needs /dev/kvm)', () => {
  test('an exception in the main thread', async () => {
    const { code, output, took } = await run('throw');
    expect(code).toBe(1);
    expect(output).toContain('Thrown in the main thread.');
    expect(took).toBeLessThan(LIMIT_MS);
  });

  test('a rejection that nobody handles', async () => {
    const { code, took } = await run('reject');
    expect(code).toBe(1);
    expect(took).toBeLessThan(LIMIT_MS);
  });

  test('process.exit, with vCPUs in the guest or paused', async () => {
    const outcomes = [await run('exit'), await run('exit-paused')];
    expect(outcomes).toMatchObject([
      { code: 5, signal: null },
      { code: 6, signal: null },
    ]);
    for (const { took } of outcomes) expect(took).toBeLessThan(LIMIT_MS);
  });

  test('an exception in the machine thread: calls are answered with it', async () => {
    const { code, output, took } = await run('counters');
    expect(output).toContain('The engine failed: the machine thread ended (Fault injected at counters.).');
    expect(code).toBe(0);
    expect(took).toBeLessThan(LIMIT_MS);
  });

  test('a machine thread that hangs: closing goes on without it, and says what each thread does', async () => {
    const { code, output } = await run('hang counters');
    expect(output).toContain('The engine failed: the machine thread has not answered for 0.3 s (');
    expect(output).toMatch(/machine: in futex\(.*; vcpu0: .*; vcpu1: /);
    expect(code).toBe(0);
  });

  test.each(['vcpu0', 'vcpu1'])('an exception in the thread of %s', async (vcpu) => {
    const { code, output, took } = await run(vcpu);
    expect(output).toContain(`Fault injected into vCPU ${vcpu.slice(-1)}.`);
    expect(output).toContain('engine-error: ');
    expect(code).toBe(0);
    expect(took).toBeLessThan(LIMIT_MS);
  });

  test.each(['SIGKILL', 'SIGTERM', 'SIGSEGV'] as const)('%s from outside', async (signal) => {
    const { signal: by, took } = await run('wait', (pid) => process.kill(pid, signal));
    expect(by).toBe(signal);
    expect(took).toBeLessThan(LIMIT_MS);
  });

  test('abort', async () => {
    const { signal, took } = await run('abort');
    expect(signal).toBe('SIGABRT');
    expect(took).toBeLessThan(LIMIT_MS);
  });

  test('closing a machine lets the process end by itself', async () => {
    const { code, took } = await run('close');
    expect(code).toBe(0);
    expect(took).toBeLessThan(LIMIT_MS);
  });

  test('nothing is left of any of them', () => {
    expect(survivors()).toEqual([]);
  });
});
