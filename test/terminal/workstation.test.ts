/** The workstation in a real terminal: one guest, looked at and changed through keys alone. */
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { nemu, runNemu } from '../support/cli.ts';
import { hasTmux, Terminal } from '../support/tmux.ts';

const LIMIT_MS = 300_000;
const BOOT_MS = 120_000;

describe.skipIf(!hasTmux)('the workstation (needs tmux)', () => {
  test('a guest is booted, looked at, changed and left', { timeout: LIMIT_MS }, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'nemu-workstation-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const env = { XDG_STATE_HOME: join(folder, 'state'), XDG_RUNTIME_DIR: folder };
    const terminal = new Terminal(150, 42, { ...env, LC_ALL: 'C.UTF-8', TERM: 'xterm-256color', NO_COLOR: '1' });
    onTestFinished(() => terminal.close());
    terminal.line(`cd ${folder}; ${nemu} workstation --cpus 1,max=4 --memory 512M,max=2G; echo "status $?"`);
    const screen = await terminal.until('guest settled', BOOT_MS);
    for (const pane of ['vCPUs', 'PCI', 'memory', 'exits', 'console', 'events']) expect(screen).toContain(pane);
    // Not a colour, as NO_COLOR asks.
    // biome-ignore lint/suspicious/noControlCharactersInRegex: SGR sequences
    expect(terminal.colours).not.toMatch(/\x1b\[[\d;]*(3[0-7]|9[0-7]|4[0-7]|38|48)[;\d]*m/);

    // All at once, as a fast typist or a slow terminal brings it.
    terminal.press('2', ':');
    terminal.line('cpu add 1');
    await terminal.until(/plug cpu1.*online/);

    // Typing belongs to the guest until Ctrl-].
    terminal.type('5iecho $((6 * 7)) of $(nproc)\r');
    await terminal.until(/42 of [12]\b/);
    // This shell has not asked for the marks around a paste.
    terminal.paste('echo $((40 + 4)) pasted\n');
    expect(await terminal.until('44 pasted')).not.toContain('200~');
    // Who goes elsewhere with the mouse takes the keyboard along.
    terminal.click(5, 3);
    await terminal.until(/^(?![\s\S]*Ctrl-\])/);
    terminal.type('5i');
    await terminal.until('Ctrl-]: back from com1');
    terminal.press('C-]');

    // In the REPL there is nowhere to go, and the palette's lines are lines of their own.
    terminal.type('6i');
    terminal.line('.exit');
    terminal.line('40 + 5');
    await terminal.until(/│(nemu> )?45 +│/);
    terminal.type('half a line');
    terminal.press('C-]', ':');
    terminal.line('await vm.name.length * 20');
    await terminal.until(/│(nemu> )?80 +│/);
    // The terminal goes to and fro, whatever is pressed at once with the key that brings it back.
    terminal.press('C-]');
    const away = /^(?![\s\S]*vCPUs)/;
    terminal.type('5z');
    await terminal.until(away);
    terminal.type('\x1d\x0c');
    await terminal.until('vCPUs');
    terminal.type('z');
    await terminal.until(away);
    terminal.type('\x1dz');
    terminal.type('echo $((30 + 3)) zoomed\r');
    await terminal.until(/33 zoomed(?![\s\S]*vCPUs)/);
    terminal.press('C-]');
    await terminal.until('vCPUs');
    terminal.press('7');

    // Another terminal, a script or a tool joins it by its name.
    const joined = async (...args: string[]) => (await runNemu(args, { env })).stdout.toString();
    expect(JSON.parse(await joined('ps', '--json'))).toMatchObject([{ name: 'nemu', state: 'running' }]);
    expect(await joined('exec', 'nemu', '--', 'nproc; echo from outside >/dev/console')).toBe('2\n');
    await terminal.until('from outside');
    expect(await joined('logs', 'nemu')).toContain('from outside');
    expect(await joined('repl', 'nemu', '-e', 'plug virtio-rng')).toContain('rng');
    await terminal.until(/plug rng.*online/);
    expect(await joined('qmp', 'nemu', 'query-status')).toContain('running');

    // What the other one did is the last that was done.
    terminal.press('u');
    await terminal.until(/Take this back\? vm\.plug\(.*virtio-rng/);
    terminal.press('y');
    await terminal.until("undo: vm.unplug('rng')");
    terminal.press('u');
    await terminal.until('Take this back? vm.cpus.add(1)');
    terminal.press('y');
    await terminal.until(/vCPUs 1\/4/);
    // Its last word must not take the place of what comes next.
    await terminal.until("undo: vm.unplug('cpu1')");

    // A shell of the host beside the consoles, with its own terminal and this `nemu`.
    terminal.press('!');
    await terminal.until(/console .*\[host\]/);
    terminal.type('stty size; stty -a | grep -o " echo "; nemu exec nemu -- uname -n\r');
    await terminal.until(/ echo\s[\s\S]*\bnemu\b\s/);
    terminal.type('sleep 1000\r');
    terminal.press('C-c');
    terminal.type('kill -0 $$ && echo "alive $((60 + 7))"; exit\r');
    await terminal.until('host: It has ended.');
    expect(terminal.visible).not.toContain('[host]');
    if (existsSync('/usr/bin/gdb')) {
      terminal.press('x');
      await terminal.until(/console .*\[gdb\]/);
      await terminal.until('(gdb)');
      terminal.type('info threads\r');
      await terminal.until('CPU#0');
      // Without it, gdb asks whether it may.
      terminal.type('detach\r');
      await terminal.until('detached');
      terminal.type('quit\r');
      await terminal.until('gdb: It has ended.');
      expect(await joined('exec', 'nemu', '--', 'echo', 'alive')).toContain('alive');
    }
    // What is plugged has a tab, as long as it is there.
    terminal.press(':');
    terminal.line('plug virtio-console id=late');
    await terminal.until(/console .*\blate\b/);
    terminal.press(':');
    terminal.line('unplug late');
    await terminal.until(/^(?![\s\S]*console [^\n]*\blate\b)/);

    terminal.press('?');
    await terminal.until('type to narrow');
    terminal.type('nmi');
    await terminal.until('send an NMI');
    terminal.press('Escape', 'Escape');

    // Any size: half of it, and next to nothing.
    terminal.resize(80, 24);
    const small = await terminal.until(/^(?=[\s\S]*vCPUs)(?![\s\S]*type to narrow)/);
    expect(Math.max(...small.split('\n').map((line) => [...line].length))).toBeLessThanOrEqual(80);
    terminal.resize(20, 4);
    await terminal.until(/NEMU needs \d+×\d+/);
    terminal.resize(150, 42);
    await terminal.until('vCPUs');

    terminal.press('q');
    await terminal.until('Sure?');
    terminal.press('Escape');
    await terminal.until(/^(?![\s\S]*Sure\?)/);

    // The guest ends while keys are its own: there is nobody left to type to.
    terminal.type('5i');
    await terminal.until('Ctrl-]: back from');
    terminal.type('poweroff\r');
    await terminal.until(/The guest powered off[\s\S]*q leave/);
    terminal.press('q');
    await terminal.until('status 0');
    expect(readdirSync(folder).filter((name) => name.startsWith('nemu.'))).toEqual([]);
  });
});
