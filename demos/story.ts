/** What the demos share: each tells what it does, what came of it, and fails when that is not so. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import type { Vm } from '../src/repl/vm.ts';

/** `vm` is in scope of every script that `nemu run --script` runs. */
export const { vm } = globalThis as unknown as { vm: Vm };

export const say = (text: string): void => console.log(text);

/** Says what was done, by its code or its stages. */
export async function does<T>(code: string, action: () => Promise<T>): Promise<T> {
  const result = await action();
  const text = typeof result === 'string' ? result : inspect(result);
  console.log(`  nemu> ${code}\n  ${text.replaceAll('\n', '\n  ')}`);
  return result;
}

/** What a command in the guest prints, which is also shown. */
export async function guest(command: string, expected?: string | RegExp): Promise<string> {
  const { output, status } = await vm.sh(command);
  const text = output.trim();
  console.log(`  guest# ${command}\n  ${text.replaceAll('\n', '\n  ')}`.trimEnd());
  assert.equal(status, 0, `"${command}" failed with status ${status}`);
  if (typeof expected === 'string') assert.equal(text, expected);
  else if (expected) assert.match(text, expected);
  return text;
}

/** What an action fails with, which is also shown. */
export async function refused(code: string, action: () => Promise<unknown>, expected: RegExp): Promise<void> {
  console.log(`  nemu> ${code}`);
  await assert.rejects(action, (error: Error & { readonly text?: string }) => {
    console.log(`  ${(error.text ?? error.message).replaceAll('\n', '\n  ')}`);
    return expected.test(error.message);
  });
}

const folder = mkdtempSync(join(tmpdir(), 'nemu-demo-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** A sparse file that begins with a text, and goes with the demo. */
export function image(name: string, mib: number, text = ''): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  truncateSync(path, mib * 2 ** 20);
  return path;
}
