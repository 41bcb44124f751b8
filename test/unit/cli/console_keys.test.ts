/** What a key does at a console: a guest's bytes, the prefix and what is behind it, and the key that leaves. */
import { PassThrough } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import type { ReadStream, WriteStream } from 'node:tty';
import { expect, onTestFinished, test } from 'vitest';
import { ConsoleSession } from '../../../src/cli/console_session.ts';
import type { ConsoleStream } from '../../../src/client/machine_client.ts';

function setUp({ leave = true } = {}) {
  let sent = '';
  const did: string[] = [];
  const console: ConsoleStream = {
    ...{ name: 'com1', onData: undefined, onLost: undefined, onWritable: undefined },
    write: (bytes) => {
      sent += Buffer.from(bytes).toString('latin1');
      return bytes.length;
    },
  };
  const input = Object.assign(new PassThrough(), { setRawMode: () => {} });
  const output = new PassThrough();
  const session = new ConsoleSession(input as unknown as ReadStream, output as unknown as WriteStream, console, {
    commands: [
      { key: 'p', help: 'pause', run: () => void did.push('p') },
      { key: 'd', help: 'leave', leaves: true, run: () => void did.push('d') },
      { key: 'c', help: 'a REPL', takesTerminal: true, run: () => new Promise<undefined>(() => {}) },
    ],
    ...(leave && { leave: { key: 0x1d, help: 'leave', run: () => void did.push('leave') } }),
    resized: () => {},
  });
  onTestFinished(() => session.end());
  const press = async (...pieces: string[]) => {
    sent = '';
    for (const piece of pieces) input.emit('data', Buffer.from(piece, 'latin1'));
    // Commands run behind the bytes that came with them.
    await setImmediate();
    return { sent, did: did.splice(0) };
  };
  return { press, input, said: () => (output.read() ?? '').toString() as string };
}

test('bytes are the guest’s, and nothing waits', async () => {
  const { press } = setUp();
  expect((await press('ls\r\x1b')).sent).toBe('ls\r\x1b');
  const all = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte))
    .filter((byte) => byte !== '\x1d' && byte !== '\x01')
    .join('');
  expect((await press(all, ...all)).sent).toBe(all + all);
});

test('the prefix and a key behind it, at once or one by one, and twice for the guest', async () => {
  const { press } = setUp();
  expect(await press('a\x01Pb')).toEqual({ sent: 'ab', did: ['p'] });
  expect(await press('\x01', 'p')).toEqual({ sent: '', did: ['p'] });
  expect(await press('\x01\x01b')).toEqual({ sent: '\x01b', did: [] });
});

test('a key that is none is named, whole', async () => {
  const { press, said } = setUp();
  expect(await press('\x01\x1b[Ab')).toEqual({ sent: 'b', did: [] });
  expect(said()).toContain('There is no Ctrl-a "\\u001b[a"');
});

test('what is typed at once with the key that gives the terminal away is for whoever has it then', async () => {
  const { press, input } = setUp();
  expect((await press('a\x01cvm.name\r')).sent).toBe('a');
  expect(input.read()?.toString()).toBe('vm.name\r');
  const { press: again, input: rest } = setUp();
  await again('\x01cx\x1b[');
  expect(rest.read()?.toString()).toBe('x\x1b[');
});

test('what is typed behind a command that leaves is for nobody', async () => {
  const { press } = setUp();
  expect(await press('\x01dls\r', 'rm\r')).toEqual({ sent: '', did: ['d'] });
});

test('Esc right before a key of ours is the guest’s', async () => {
  const { press } = setUp();
  expect(await press('\x1b\x01p')).toEqual({ sent: '\x1b', did: ['p'] });
  expect(await press('\x1b\x1d')).toEqual({ sent: '\x1b', did: ['leave'] });
});

test('what the terminal says behind the prefix is the guest’s, and the key that follows is meant', async () => {
  for (const report of ['\x1b[I', '\x1b[12;40R', '\x1b[<35;3;4M', '\x1b]11;rgb:1/2/3\x1b\\']) {
    expect(await setUp().press('\x01', report, 'p')).toEqual({ sent: report, did: ['p'] });
  }
});

test('Ctrl-] leaves, and what is behind it is for nobody', async () => {
  const { press } = setUp();
  expect(await press('a\x1dls\r', 'rm\r')).toEqual({ sent: 'a', did: ['leave'] });
});

test('where no key leaves, Ctrl-] is the guest’s', async () => {
  expect(await setUp({ leave: false }).press('a\x1db\x1b[A')).toEqual({ sent: 'a\x1db\x1b[A', did: [] });
});

test('the same when a guest has asked for keys as kitty or XTerm writes them', async () => {
  const { press } = setUp();
  // Ctrl goes down, a, and both are let go, then c with all of its events.
  expect((await press('\x1b[57442;5u\x1b[97;5u', '\x1b[97;5:3u\x1b[57442;1:3u', '\x1b[112;1:1u')).did).toEqual(['p']);
  expect((await press('\x1b[97;5u\x1b[97;5u')).sent).toBe('\x1b[97;5u');
  expect((await press('\x1b[27;5;93~')).did).toEqual(['leave']);
});

test('nothing in a paste is a key of ours', async () => {
  const { press } = setUp();
  const paste = '\x1b[200~a\x01p\x1db\x1b[201~';
  expect(await press(paste)).toEqual({ sent: paste, did: [] });
  expect(await press(paste.slice(0, 12), paste.slice(12, -2), paste.slice(-2), '\x01p')).toEqual({
    sent: paste,
    did: ['p'],
  });
});
