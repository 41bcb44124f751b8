/** Stock gdb on a stock guest: from before its first instruction to breakpoints in its kernel. One boot. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { symbolFile } from '../../src/gdb/symbol_file.ts';
import { nemu, runNemu } from '../support/cli.ts';

const LIMIT_MS = 300_000;
/** What `uname` asks the kernel. */
const FUNCTION = '__x64_sys_newuname';
/** Where kernels are linked: START_KERNEL_map and 16 MiB. */
const LINK_ADDRESS = 0xffffffff81000000n;
const hasGdb = existsSync('/usr/bin/gdb');

describe.skipIf(!hasGdb)('gdb on a guest (needs gdb)', () => {
  let folder: string;
  let env: Record<string, string>;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-gdb-'));
    env = { XDG_STATE_HOME: join(folder, 'state'), XDG_RUNTIME_DIR: join(folder, 'run'), HOME: folder };
    env.XDG_CACHE_HOME = process.env.XDG_CACHE_HOME ?? join(process.env.HOME ?? '/root', '.cache');
    mkdirSync(env.XDG_RUNTIME_DIR, { mode: 0o700 });
  });
  afterAll(() => {
    spawnSync(nemu, ['kill', '--all'], { env: { ...process.env, ...env } });
    rmSync(folder, { recursive: true, force: true });
  });

  const run = (...args: string[]) => runNemu(args, { env });
  /** What a command that succeeds prints, on both of its outputs. */
  const said = async (args: readonly string[]) => {
    const { status, stdout, stderr } = await runNemu(args, { env });
    expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
    return `${stdout}${stderr}`;
  };
  const words = (commands: readonly string[]) => ['-nx', '-batch', ...commands.flatMap((each) => ['-ex', each])];
  const gdb = (commands: readonly string[]) => said(['gdb', 'work', '--', ...words(commands)]);
  const hostGdb = (commands: readonly string[]) =>
    new Promise<string>((resolve) => {
      let output = '';
      const child = spawn('gdb', words(commands), { stdio: ['ignore', 'pipe', 'pipe'] });
      for (const stream of [child.stdout, child.stderr]) {
        stream.on('data', (bytes: Buffer) => {
          output += bytes;
        });
      }
      child.once('close', () => resolve(output));
    });

  test(
    'waits, steps, breaks at functions by name, looks, and leaves a guest that goes on',
    async () => {
      const socket = join(folder, 'gdb.sock');
      await said(['run', '-d', '--name', 'work', '--cpus', '2', '--gdb', `unix:${socket},wait`]);
      // Before its first instruction.
      const target = `target remote ${socket}`;
      const early = await hostGdb([target, 'p/x $cr0', 'p $rip', 'stepi', 'p $rip', 'stepi', 'p $rip', 'detach']);
      const places = [...early.matchAll(/\(void \(\*\)\(\)\) (0x[0-9a-f]+)/g)].map(([, at]) => Number(at));
      expect(places, early).toHaveLength(3);
      expect(new Set(places).size).toBe(3);

      // Its driver of fw_cfg tells where the kernel is, and with that its symbols.
      const told = '/sys/firmware/qemu_fw_cfg/by_name/etc/vmcoreinfo';
      const release = (await said(['exec', 'work', '--', `until [ -e ${told} ]; do sleep 0.1; done; uname -r`])).trim();
      // The symbols are the guest's own; its second vCPU is a thread.
      // The guest stands still while it is asked, and answers when gdb has it go on.
      const answer = join(folder, 'answer');
      // A function of a module.
      const line = "awk '/\\[evdev\\]/ && $2 ~ /[tT]/ { print $1, $3; exit }' /proc/kallsyms";
      const [address, name] = (await said(['exec', 'work', '--', 'sh', '-c', line])).trim().split(' ');
      const place = `0x${address}`;
      const output = await gdb([
        ...['info threads', `break *${FUNCTION}`, `shell ${nemu} exec work -- uname -r >${answer} 2>&1 </dev/null &`],
        ...['continue', 'p/x $rip', 'info symbol $pc', 'x/2i $pc', 'p/x $rdi', 'stepi', 'info symbol $pc'],
        `info symbol ${place}`,
        ...['p/x $gs_base', 'monitor info status', 'x/s &linux_banner', 'info breakpoints', 'delete', 'detach'],
      ]);
      for (const text of [
        ...['Thread 1 (CPU#0', 'Thread 2 (CPU#1', `Breakpoint 1, `, `<${FUNCTION}>`, `${FUNCTION} in section .text`],
        `${name} in section .text`,
        ...['VM status: paused (debug)', `Linux version ${release}`, 'breakpoint already hit 1 time'],
      ]) {
        expect(output).toContain(text);
      }
      expect(output).toMatch(new RegExp(`${FUNCTION} \\+ \\d+ in section .text`));
      // Whoever ran into it has its answer.
      await expect.poll(() => readFileSync(answer, 'utf8').trim(), { timeout: 30_000 }).toBe(release);

      // A vmlinux has the addresses that it was linked at: those of the guest are elsewhere by what KASLR has chosen.
      const symbols = await said(['exec', 'work', '--', `grep -wE '_text|${FUNCTION}' /proc/kallsyms`]);
      const addressOf = (name: string) =>
        BigInt(`0x${new RegExp(`^([0-9a-f]{16}) . ${name}$`, 'm').exec(symbols)?.[1] ?? 0}`);
      const linked = addressOf(FUNCTION) - addressOf('_text') + LINK_ADDRESS;
      const vmlinux = join(folder, 'vmlinux');
      writeFileSync(vmlinux, symbolFile([{ type: 'T', name: FUNCTION, address: linked }]));
      const both = await said(['gdb', 'work', vmlinux, '--', ...words([`p &${FUNCTION}`, `p &${name}`, 'detach'])]);
      expect(both).toContain(`0x${addressOf(FUNCTION).toString(16)} <${FUNCTION}>`);
      expect(both).toContain(`${place} <${name}>`);

      // The socket of the start is still there for the next gdb; gdb leaves it by its own end, without a word.
      expect(await hostGdb([target, 'p $cs', 'monitor info registers'])).toContain('CPU#0');
      expect((await said(['qmp', 'work', 'query-status'])).toString()).toContain('"status": "running"');
      expect((await said(['exec', 'work', '--', 'echo', 'alive'])).trim()).toBe('alive');

      // QEMU's way to have one more place.
      const server = `gdbserver unix:${join(folder, 'other.sock')}`;
      const more = await said(['qmp', 'work', 'human-monitor-command', `command-line=${server}`]);
      expect(more).toContain('Waiting for gdb connection on device');
      expect(await hostGdb([`target remote ${join(folder, 'other.sock')}`, 'p $cs'])).toContain('$1 = ');
      const { status, stderr } = await run('gdb', 'work', '--gdb', 'no-such-gdb');
      expect({ status, stderr }).toMatchObject({ status: 1, stderr: expect.stringContaining('no-such-gdb') });
    },
    LIMIT_MS,
  );
});
