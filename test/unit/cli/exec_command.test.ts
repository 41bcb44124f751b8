/** What `nemu exec` prints: no more of it than its reader takes. */
import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { printTo } from '../../../src/cli/machines/exec_command.ts';

test('a reader that takes nothing holds the command up, until it does', async () => {
  const pipe = new PassThrough({ highWaterMark: 10 });
  const print = printTo(pipe);
  expect(print(Buffer.from('abc'))).toBeUndefined();
  const first = print(Buffer.alloc(20));
  const second = print(Buffer.alloc(20));
  expect(first).toBeInstanceOf(Promise);
  expect(second).toBe(first);
  let goes = false;
  void first?.then(() => {
    goes = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(goes).toBe(false);
  pipe.resume();
  await first;
  expect(print(Buffer.from('abc'))).toBeUndefined();
});
