import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { type CpioEntry, readCpio, writeCpio } from '../../../src/lab/cpio.ts';
import { concatenateArchives, overlayArchive, quote, taskOverlay } from '../../../src/lab/initramfs.ts';

const members: CpioEntry[] = [
  { type: 'folder', path: 'etc' },
  { type: 'file', path: 'etc/hosts', mode: 0o600, data: Buffer.from('abc') },
  { type: 'file', path: 'empty', mode: 0o644, data: Buffer.alloc(0) },
  { type: 'link', path: 'sh', target: 'bin/busybox' },
  { type: 'char', path: 'console', mode: 0o600, major: 5, minor: 1 },
];

const plain = (entries: CpioEntry[]) =>
  entries.map((entry) => (entry.type === 'file' ? { ...entry, data: Buffer.from(entry.data).toString('hex') } : entry));

describe('cpio', () => {
  it('gives back what was written, with the folders that were missing', () => {
    const archive = writeCpio([
      ...members,
      { type: 'file', path: 'a/b/c', mode: 0o755, data: Buffer.from([0, 1, 255]) },
    ]);
    expect(archive.length % 4).toBe(0);
    const paths = readCpio(archive).map((entry) => entry.path);
    expect(paths).toEqual(['etc', 'etc/hosts', 'empty', 'sh', 'console', 'a', 'a/b', 'a/b/c']);
    expect(plain(readCpio(archive)).slice(1, 5)).toEqual(plain(members).slice(1));
    expect(writeCpio(members).equals(writeCpio(members))).toBe(true);
  });

  it('is what busybox and cpio call an archive', ({ skip }) => {
    const result = spawnSync('busybox', ['cpio', '-t'], { input: writeCpio(members) });
    if (result.error) skip('busybox is not installed.');
    expect(result.stdout.toString().trim().split('\n')).toEqual(['etc', 'etc/hosts', 'empty', 'sh', 'console']);
    expect(result.status).toBe(0);
  });

  it('reads archives behind one another', () => {
    const both = concatenateArchives([
      Buffer.concat([writeCpio(members), Buffer.alloc(2)]),
      overlayArchive({ x: 'y' }),
    ]);
    expect(readCpio(both).map((entry) => entry.path)).toEqual(['etc', 'etc/hosts', 'empty', 'sh', 'console', 'x']);
  });

  it('refuses paths that leave the root', () => {
    for (const path of ['', '/etc', '../x', 'a/../../x', 'a\0b', 'TRAILER!!!']) {
      expect(() => writeCpio([{ type: 'folder', path }]), path).toThrow(/cannot be stored/);
    }
  });

  it('names the offset of what is malformed, and never anything but that', () => {
    const archive = writeCpio(members);
    for (let length = 1; length < archive.length; length += 7) {
      expect(() => readCpio(archive.subarray(0, length))).toThrow(/malformed at offset \d+/);
    }
    let refused = 0;
    for (let at = 0; at < archive.length; at++) {
      const damaged = Buffer.from(archive);
      damaged[at] = (damaged[at] ?? 0) ^ 0x80;
      try {
        readCpio(damaged);
      } catch (error) {
        expect(error).toMatchObject({ code: 'CPIO_FORMAT' });
        refused += 1;
      }
    }
    expect(refused).toBeGreaterThan(archive.length / 4);
  });
});

describe('the task of a guest', () => {
  const files = (archive: Buffer) =>
    Object.fromEntries(
      readCpio(archive).flatMap((entry) => (entry.type === 'file' ? [[entry.path, entry.data.toString()]] : [])),
    );

  it('is a shell, a script or a program', () => {
    expect(files(taskOverlay({}))).toEqual({ 'nemu/mode': 'shell\n' });
    expect(files(taskOverlay({ command: 'exit 7' }))).toEqual({ 'nemu/mode': 'command\n', 'nemu/command': 'exit 7\n' });
    const task = { command: ['echo', "it's", ''], env: { A: '$(b)' }, terminal: { rows: 50, columns: 132 } };
    expect(files(taskOverlay(task))).toEqual({
      'nemu/mode': 'command\n',
      'nemu/command': "exec 'echo' 'it'\\''s' ''\n",
      'nemu/env': "export A='$(b)'\n",
      'nemu/tty': '50 132\n',
    });
  });

  it('refuses what a shell cannot take', () => {
    expect(() => taskOverlay({ env: { 'A;reboot': '1' } })).toThrow(/cannot be the name/);
    expect(() => taskOverlay({ command: ['a\0b'] })).toThrow(/NUL/);
  });

  it('quotes so that a shell gives the words back', () => {
    for (const word of ["'", "''", '$HOME `id` \\ "', '\n', '*', '-n', '\x7fäöü']) {
      const { stdout } = spawnSync('sh', ['-c', `printf %s ${quote(word)}`]);
      expect(stdout.toString()).toBe(word);
    }
  });
});
