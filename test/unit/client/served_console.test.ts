/** A console to a peer that is not to be trusted with how much it has room for. */
import { Duplex } from 'node:stream';
import { expect, test } from 'vitest';
import type { ConsoleStream } from '../../../src/client/machine_client.ts';
import { MAX_UNREAD, WINDOW } from '../../../src/client/protocol.ts';
import { ServedConsole } from '../../../src/client/served_console.ts';

/** A peer that reads nothing. */
const unread = () => new Duplex({ read: () => {}, write: () => {}, highWaterMark: 1 });

const source = (): ConsoleStream => ({
  ...{ name: 'com1', onData: undefined, onLost: undefined, onWritable: undefined },
  write: (bytes) => bytes.length,
});

test('credit for more than was sent is a window at most', () => {
  const console = source();
  const stream = unread();
  const served = new ServedConsole(stream, 1, console);
  for (let i = 0; i < 100; i++) served.credit(0xffff_ffff);
  let printed = 0;
  for (; console.onData; printed += 4096) console.onData(Buffer.alloc(4096));
  expect(printed).toBe(WINDOW);
  served.credit(4096);
  expect(console.onData).toBeDefined();
});

test('who gives credit for what it does not read is let go of', () => {
  const console = source();
  const stream = unread();
  const served = new ServedConsole(stream, 1, console);
  let printed = 0;
  for (; !stream.destroyed && printed < 4 * MAX_UNREAD; printed += WINDOW) {
    console.onData?.(Buffer.alloc(WINDOW));
    served.credit(WINDOW);
  }
  expect(stream.destroyed).toBe(true);
  expect(printed).toBeLessThanOrEqual(MAX_UNREAD + WINDOW);
});
