/** Stock gdb as the judge of the protocol, on a machine without a processor: test/guest/gdb.test.ts has a real one. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { serveGdb } from '../../src/gdb/server.ts';
import { GdbMachine } from '../support/gdb_machine.ts';

const hasGdb = (() => {
  try {
    execFileSync('gdb', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

/** Runs gdb's commands one after the other on a machine. */
async function gdb(machine: GdbMachine, commands: readonly string[]): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-gdb-'));
  const path = join(folder, 'gdb');
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    void serveGdb(socket, machine.client, { monitor: async (line) => `${line}, said the machine\n` });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  let child: ChildProcess | undefined;
  onTestFinished(() => {
    child?.kill();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const all = [`target remote ${path}`, ...commands].flatMap((command) => ['-ex', command]);
  const running = spawn('gdb', ['-nx', '-q', '-batch', ...all], { stdio: ['ignore', 'pipe', 'pipe'] });
  child = running;
  let output = '';
  for (const stream of [running.stdout, running.stderr]) {
    stream.on('data', (bytes: Buffer) => {
      output += bytes;
    });
  }
  await new Promise((resolve) => running.once('close', resolve));
  return output;
}

describe.skipIf(!hasGdb)('gdb (needs gdb)', () => {
  test('takes the description: registers with their fields, and vCPUs as threads', async () => {
    const machine = new GdbMachine();
    Object.assign(machine.registers[0], {
      ...{ rax: '0x1122334455667788', eflags: '0x246', cr0: '0x80050033', cr3: '0x1234000', efer: '0xd01' },
      ...{ xmm2: '0x3ff0000000000000', mxcsr: '0x1f80', st0: '0x3fff8000000000000000', gs_base: '0xffff888000000000' },
    });
    const output = await gdb(machine, [
      ...['show architecture', 'info threads', 'p/x $rax', 'p $eflags', 'p $cr0', 'p $efer', 'p $cr3'],
      ...['p $xmm2.v2_double[0]', 'p $mxcsr', 'p $st0', 'p/x $gs_base', 'thread 2', 'p/x $rip', 'set $rbx = 42'],
    ]);
    for (const text of [
      ...['currently "i386:x86-64"', 'Thread 1 (CPU#0 [running])', 'Thread 2 (CPU#1 [running])'],
      ...['0x1122334455667788', '[ PF ZF IF IOPL=0 ]', '[ PE MP ET NE WP AM PG ]', '[ SCE LME LMA NXE ]', 'PDBR=4660'],
      ...['= 1\n', '[ IM DM ZM OM UM PM ]', '0xffff888000000000', '0x2000'],
    ]) {
      expect(output).toContain(text);
    }
    expect(machine.registers[1].rbx).toBe('0x2a');
    expect(machine).toMatchObject({ attached: false, state: 'running' });
  });

  test('reads and writes memory, breaks, steps over what it broke at, and detaches', async () => {
    const machine = new GdbMachine();
    const output = await gdb(machine, [
      ...['set {long}0x3000 = 0x0102030405060708', 'x/2xb 0x3000', 'x/xb 0xfffffffffffffff0', 'stepi'],
      ...[
        'break *0x1234',
        'continue',
        'p/x $pc',
        'stepi',
        'p/x $pc',
        'hbreak *0x1300',
        'continue',
        'p/x $pc',
        'delete',
      ],
      ...['watch *(long *)0x3000', 'awatch *(int *)0x4000', 'monitor info status', 'detach'],
    ]);
    for (const text of [
      ...['0x3000:\t0x08\t0x07', 'Cannot access memory at address 0xfffffffffffffff0', '0x0000000000001001 in ?? ()'],
      ...['Breakpoint 1, 0x0000000000001234', '= 0x1235', 'Breakpoint 2, 0x0000000000001300'],
      ...['Hardware watchpoint 3', 'Hardware access (read/write) watchpoint 4', 'info status, said the machine'],
    ]) {
      expect(output).toContain(text);
    }
    expect(machine).toMatchObject({ attached: false, state: 'running', breakpoints: [] });
  });

  test('is told why it is not let in, and does not kill', async () => {
    const machine = new GdbMachine();
    await machine.attachDebugger();
    expect(await gdb(machine, [])).toContain('E.Another debugger is attached to this machine.');
    await machine.detachDebugger();
    await gdb(machine, ['kill']);
    expect(machine).toMatchObject({ attached: false, state: 'running' });
  });
});
