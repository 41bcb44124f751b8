/** The whole terminal for one pane. */
import { EventEmitter } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import type { WriteStream } from 'node:tty';
import { expect, onTestFinished, test } from 'vitest';
import { TerminalInput } from '../../../src/tui/input.ts';
import { TerminalPane } from '../../../src/tui/terminal_pane.ts';
import { Zoom } from '../../../src/tui/zoom.ts';
import { stateOf, terminal, write } from '../../support/terminal_state.ts';

const ROWS = 24;
const COLUMNS = 80;

/** What is written to it is kept. */
class Screen extends EventEmitter {
  readonly columns = COLUMNS;
  readonly rows = ROWS;
  readonly writableLength = 0;
  out = Buffer.alloc(0);
  write(bytes: Uint8Array | string): boolean {
    this.out = Buffer.concat([this.out, Buffer.from(bytes as string)]);
    return true;
  }
}

function zoomed() {
  const screen = new Screen();
  let parsed = () => {};
  const pane = new TerminalPane({ name: 'com1', send: () => {}, changed: () => parsed() });
  onTestFinished(() => pane.close());
  const input = new TerminalInput();
  const zoom = new Zoom(screen as unknown as WriteStream, input, { mute: false, skipped: () => {} });
  const feed = async (bytes: Buffer) => {
    const done = new Promise<void>((resolve) => {
      parsed = resolve;
    });
    pane.write(bytes);
    zoom.saw(pane, bytes);
    await done;
  };
  return { screen, pane, zoom, input, feed };
}

test.each([
  ['hello \x1b[3', '1mred'],
  ['hello \x1b]0;my tit', 'le\x07world'],
  ['\x1b[3;3H\x1b7\x1b[Htop', '\x1b8HERE'],
  ['caf\xc3', '\xa9!'],
  ['\x1b[2;5r\x1b[?6h\x1b[?25l\x1b(0\x1b[3;1H', 'a\nqqq\n\n\nb'],
])('shows what the pane has, and what comes then: %j and %j', async (before, after) => {
  const { screen, pane, zoom, feed } = zoomed();
  await feed(Buffer.from(before, 'latin1'));
  const shown = zoom.show(pane);
  await setImmediate();
  await feed(Buffer.from(after, 'latin1'));
  const [right, seen] = [terminal(ROWS, COLUMNS), terminal(ROWS, COLUMNS)];
  await write(right, Buffer.from(before + after, 'latin1'));
  await write(seen, screen.out);
  expect(stateOf(seen)).toEqual(stateOf(right));
  screen.out = Buffer.alloc(0);
  zoom.end();
  await shown;
  await write(seen, screen.out);
  expect(seen.modes).toEqual(terminal(ROWS, COLUMNS).modes);
});

test('the keyboard is whose it is behind Ctrl-], whatever is pressed in the same read', async () => {
  const { input, pane, zoom } = zoomed();
  const sent: string[] = [];
  (pane as { send: unknown }).send = (bytes: Uint8Array) => sent.push(Buffer.from(bytes).toString('latin1'));
  let again: Promise<void> | undefined;
  const keys: string[] = [];
  input.onKey = (name) => {
    keys.push(name);
    if (name === 'i') input.raw = pane;
    if (name === 'z') again = zoom.show(pane);
  };
  const shown = zoom.show(pane);
  await setImmediate();
  input.take(Buffer.from('a\x1dji'));
  await shown;
  input.take(Buffer.from('b'));
  expect([keys, sent]).toEqual([
    ['j', 'i'],
    ['a', 'b'],
  ]);
  input.raw = undefined;
  input.take(Buffer.from('z'));
  await setImmediate();
  input.take(Buffer.from('c\x1dz'));
  await setImmediate();
  input.take(Buffer.from('d'));
  expect(sent).toEqual(['a', 'b', 'c', 'd']);
  zoom.end();
  await again;
  expect(input.raw).toBeUndefined();
});
