/** Who gets what a terminal sends: the workstation, or a guest, byte by byte. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { TerminalInput } from '../../../src/tui/input.ts';
import { TerminalPane } from '../../../src/tui/terminal_pane.ts';

function setUp() {
  const input = new TerminalInput();
  const keys: string[] = [];
  const pastes: string[] = [];
  const mouse: string[] = [];
  let sent = '';
  let parsed = () => {};
  const pane = new TerminalPane({
    name: 'com1',
    send: (bytes) => {
      sent += Buffer.from(bytes).toString('latin1');
    },
    changed: () => parsed(),
  });
  onTestFinished(() => {
    input.close();
    pane.close();
  });
  input.onKey = (name) => {
    keys.push(name);
    if (name === 'i') input.raw = pane;
  };
  input.onPaste = (text) => pastes.push(text);
  input.onMouse = ({ kind, column, row }) => mouse.push(`${kind} ${column},${row}`);
  input.onLeave = () => {
    input.raw = undefined;
  };
  const print = (text: string) =>
    new Promise<void>((resolve) => {
      parsed = resolve;
      pane.write(Buffer.from(text));
    });
  const take = (...pieces: string[]) => {
    sent = '';
    for (const array of [keys, pastes, mouse]) array.length = 0;
    for (const piece of pieces) input.take(Buffer.from(piece, 'latin1'));
    return { keys, pastes, mouse, sent };
  };
  return { input, pane, print, take };
}

test('what follows at once the key that begins typing is the guest’s, whatever it is', () => {
  const { take } = setUp();
  const { keys, sent } = take('j\x1b[Aiq\x7f\x03\x1b[B\x1by\r');
  expect(keys).toEqual(['j', 'up', 'i']);
  expect(sent).toBe('q\x7f\x03\x1b[B\x1by\r');
});

test('Ctrl-] comes back, as every protocol of keyboards has it, and what follows is ours', () => {
  for (const leave of ['\x1d', '\x1b[93;5u', '\x1b[27;5;93~']) {
    const { take } = setUp();
    const { keys, sent } = take(`iab${leave}jj`);
    expect(sent).toBe('ab');
    expect(keys).toEqual(['i', 'j', 'j']);
  }
});

test('what is pasted reaches a guest without marks, unless it has asked for them', async () => {
  const { take, print } = setUp();
  take('i');
  const pasted = 'a\r\x1d\x1b[<0;1;1Mq';
  expect(take(`\x1b[200~${pasted}\x1b[201~`)).toMatchObject({ sent: pasted, keys: [], mouse: [] });
  expect(take('\x1b[20', '0~a\r', '\x1d\x1b[20', '1~x').sent).toBe('a\r\x1dx');
  await print('\x1b[?2004h');
  expect(take('\x1b[200~a\rb', '\x1d\x1b[201', '~x').sent).toBe('\x1b[200~a\rb\x1d\x1b[201~x');
});

test('Esc reaches the guest when nothing follows', async () => {
  const { take, pane } = setUp();
  take('i');
  const sent: string[] = [];
  (pane as { send: unknown }).send = (bytes: Uint8Array) => sent.push(Buffer.from(bytes).toString('latin1'));
  expect(take('a\x1b').sent).toBe('');
  await sleep(150);
  expect(sent).toEqual(['a', '\x1b']);
});

test('Esc right before Ctrl-] is the guest’s', () => {
  const { take } = setUp();
  expect(take('ia\x1b\x1dj')).toMatchObject({ sent: 'a\x1b', keys: ['i', 'j'] });
});

test('what the terminal answers is no key', () => {
  const { take } = setUp();
  const answers = '\x1b]11;rgb:1a/2b/3c\x1b\\\x1bP>|xterm(380)\x1b\\\x1b_Gi=31;OK\x1b\\\x1b[?62;22c\x1b[24;1R\x1b[I';
  expect(take(answers, 'j')).toMatchObject({ keys: ['j'], sent: '' });
  take('i');
  expect(take(answers).sent).toBe(answers);
});

test('nothing of a paste is a key of ours', () => {
  const { take } = setUp();
  const { keys, pastes, sent } = take('\x1b[200~iq', 'y\x1b[201~j');
  expect(pastes).toEqual(['iqy']);
  expect(keys).toEqual(['j']);
  expect(sent).toBe('');
});

test('the rest of a paste goes nowhere when its guest has gone', () => {
  const { input, take } = setUp();
  take('i');
  take('\x1b[200~one');
  input.raw = undefined;
  expect(take('two\x1b[201~j')).toMatchObject({ sent: '', pastes: [], keys: ['j'] });
});

test('the mouse is ours, unless the guest has the whole terminal', () => {
  const { input, take } = setUp();
  expect(take('\x1b[<0;3;4M\x1b[<32;5;4M\x1b[<0;5', ';4m\x1b[<65;1;1M').mouse).toEqual([
    ...['press 2,3', 'drag 4,3', 'release 4,3', 'wheel-down 0,0'],
  ]);
  // As terminals have it that do not know how they were asked for it.
  expect(take('\x1b[M #$\x1b[M##$\x1b[M`#$').mouse).toEqual(['press 2,3', 'release 2,3', 'wheel-up 2,3']);
  expect(take('\x1b[32;3;4M\x1b[64;3;4M\x1b[35;3;4M', 'j')).toMatchObject({
    mouse: ['press 2,3', 'drag 2,3', 'release 2,3'],
    keys: ['j'],
  });
  take('i');
  expect(take('a\x1b[<0;3;4Mb')).toMatchObject({ sent: 'ab', mouse: ['press 2,3'] });
  input.everything = true;
  expect(take('a\x1b[<0;3;4Mb')).toMatchObject({ sent: 'a\x1b[<0;3;4Mb', mouse: [] });
});

test('every byte reaches the guest, whatever it means, and however it is cut', () => {
  const all = Buffer.from(Array.from({ length: 2048 }, (_, i) => (i * 7 + (i >> 8)) & 0xff).filter((b) => b !== 0x1d));
  const { take } = setUp();
  take('i');
  const pieces = Array.from({ length: Math.ceil(all.length / 5) }, (_, i) =>
    all.subarray(i * 5, i * 5 + 5).toString('latin1'),
  );
  expect(take(...pieces, 'e').sent).toBe(`${all.toString('latin1')}e`);
});
