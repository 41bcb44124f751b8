/** Each protocol's entry as a guest finds it, on the host's own KVM. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { hostHasKvm, microPlace } from '../../support/micro.ts';
import { buildBzImage, buildElf, buildMultiboot, buildMultibootElf, buildPvhElf } from './images.ts';

const COM1 = 0x3f8;
const DEBUG_EXIT = 0xf4;

/** Machine code that means the same in 32-bit and in 64-bit mode. */
const outByte = (port: number) => [0x66, 0xba, port & 0xff, port >> 8, 0xee]; // mov dx, port; out dx, al
/** Four bytes of eax to the serial port, low one first; `source` puts the value into eax. */
const printEax = (source: number[]) => [
  ...source,
  ...[0, 1, 2, 3].flatMap(() => [...outByte(COM1), 0xc1, 0xe8, 8]), // shr eax, 8
];
const END = [0xb0, 1, ...outByte(DEBUG_EXIT), 0xf4]; // mov al, 1; …; hlt
const LOAD_RBX = [0x8b, 0x03]; // mov eax, [rbx]
const READ_CS = [0x8c, 0xc8]; // mov eax, cs

const words = (text: string) => {
  const bytes = Buffer.from(text, 'latin1');
  return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readUInt32LE(4 * i));
};

const folder = mkdtempSync(join(tmpdir(), 'nemu-entry-'));
afterAll(() => rmSync(folder, { recursive: true }));
const place = microPlace();

async function run(name: string, kernel: Buffer): Promise<number[]> {
  const image = join(folder, name);
  writeFileSync(image, kernel);
  const guest = await place.boot(() => {}, { kernel: { image, cmdline: 'hello' }, memory: { size: '32M' } });
  await guest.machine.start();
  expect(await guest.machine.ended()).toMatchObject({ reason: 'debug-exit' });
  return words(guest.output);
}

const pvh = Uint8Array.from([...printEax(LOAD_RBX), ...printEax(READ_CS), ...END]);
const multiboot = Uint8Array.from([...printEax([]), ...printEax(LOAD_RBX), ...END]);
// mov eax, [rsi + 0x202]; then push rax (a stack is there) and mov eax, [rsi + 0x206]
const long = Uint8Array.from([
  ...printEax([0x8b, 0x86, 0x02, 0x02, 0, 0]),
  ...[0x50, 0x58],
  ...printEax([0x8b, 0x86, 0x06, 0x02, 0, 0]),
  ...END,
]);

test.skipIf(!hostHasKvm)('guests find what their protocol promises (needs /dev/kvm)', async () => {
  for (const bits of [32, 64] as const) {
    expect(await run(`pvh${bits}`, buildPvhElf(pvh, 0x100000, bits))).toEqual([0x336ec578, 0x10]);
    expect(await run(`multiboot${bits}`, buildMultibootElf(bits, multiboot))).toEqual([0x2badb002, 0x24d]);
  }
  expect(await run('multiboot', buildMultiboot({ code: multiboot }))).toEqual([0x2badb002, 0x24d]);
  const [magic, version] = await run('elf64', buildElf({ segments: [{ bytes: long }] }));
  expect([magic, version & 0xffff]).toEqual([0x53726448, 0x020c]);
  const [hdrs, protocol] = await run('bzImage', buildBzImage({ code: long, initSize: 0x100000 }));
  expect([hdrs, protocol & 0xffff]).toEqual([0x53726448, 0x020f]);
});
