/** A console's pseudo-terminal, and programs that come and go. This process is at both ends: it never waits for itself. */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ptyEnd } from '../../../src/cli/machines/background.ts';
import type { ConsoleStream } from '../../../src/client/machine_client.ts';
import { ConsoleHub } from '../../../src/console/hub.ts';
import { PtyBridge } from '../../../src/console/pty_bridge.ts';
import { PseudoTerminal } from '../../../src/ffi/pty.ts';

const ROUNDS = 500;

describe('what programs at a pseudo-terminal leave', () => {
  let typed = '';
  let room = Number.POSITIVE_INFINITY;
  let source: ConsoleStream;
  let hub: ConsoleHub;
  let bridge: PtyBridge;
  let terminal: PseudoTerminal;
  beforeEach(() => {
    typed = '';
    room = Number.POSITIVE_INFINITY;
    source = {
      ...{ name: 'com1', onData: undefined, onLost: undefined, onWritable: undefined },
      write: (bytes) => {
        const count = Math.min(room, bytes.length);
        room -= count;
        typed += Buffer.from(bytes.subarray(0, count)).toString('latin1');
        return count;
      },
    };
    hub = new ConsoleHub(source);
    terminal = new PseudoTerminal();
    bridge = new PtyBridge(hub, ptyEnd(terminal));
  });
  afterEach(() => {
    bridge.close();
    hub.close();
  });

  const open = () => openSync(terminal.path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOCTTY);
  const until = async (what: () => boolean) => {
    for (let i = 0; i < ROUNDS && !what(); i++) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(what()).toBe(true);
  };
  /** A program that has it open, and was seen. */
  const come = async () => {
    const fd = open();
    await until(() => hub.report().driver !== undefined || hub.report().viewers.length > 0);
    return fd;
  };
  const takesAgain = () => {
    room = Number.POSITIVE_INFINITY;
    source.onWritable?.();
  };

  test('what one wrote that came and went between two looks goes to the guest, in its own name', async () => {
    const fd = open();
    writeSync(fd, 'reboot\r');
    closeSync(fd);
    await until(() => typed === 'reboot\r' && hub.report().driver === undefined);
    const ann = hub.open({ role: 'driver', label: 'ann' });
    const looker = open();
    await until(() => hub.report().viewers.length === 1);
    expect([typed, ann.role]).toEqual(['reboot\r', 'driver']);
    closeSync(looker);
  });

  test('what one wrote before it went reaches a guest that reads later', async () => {
    room = 100;
    const fd = await come();
    writeSync(fd, 'x'.repeat(1000));
    await until(() => typed.length === 100);
    closeSync(fd);
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect(hub.report().driver).toContain(terminal.path);
    takesAgain();
    await until(() => hub.report().driver === undefined);
    expect(typed).toBe('x'.repeat(1000));
  });

  test('what one wrote before it went is not the next one’s, who takes over when it writes', async () => {
    room = 10;
    const first = await come();
    writeSync(first, 'x'.repeat(1000));
    await until(() => typed.length === 10);
    closeSync(first);
    await new Promise((resolve) => setTimeout(resolve, 600));
    const second = open();
    await until(() => hub.report().viewers.length === 1);
    writeSync(second, 'second');
    await until(() => hub.report().viewers.length === 0);
    takesAgain();
    await until(() => typed.endsWith('second'));
    // The first one's rest went nowhere: another drives.
    expect(typed).toBe(`${'x'.repeat(10)}second`);
    closeSync(second);
  });

  test('what one has not read is not for the next one', async () => {
    const first = await come();
    source.onData?.(Buffer.from('of the first '.repeat(1000)));
    await hub.drawn();
    await new Promise((resolve) => setTimeout(resolve, 100));
    closeSync(first);
    // Nobody is there to take it, and nobody is held up by that.
    source.onData?.(Buffer.from('of nobody'));
    await until(() => hub.report().driver === undefined);
    const second = open();
    expect(() => readSync(second, Buffer.alloc(4096))).toThrow('EAGAIN');
    closeSync(second);
  });
});
