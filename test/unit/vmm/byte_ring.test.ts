import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { ByteRing } from '../../../src/vmm/byte_ring.ts';

test('bytes come out in order, over the wrap, and a full ring takes no more', () => {
  const ring = new ByteRing(8);
  expect(ring.write(Uint8Array.of(1, 2, 3, 4, 5, 6))).toBe(6);
  expect([...ring.read(4)]).toEqual([1, 2, 3, 4]);
  expect(ring.write(Uint8Array.of(7, 8, 9, 10, 11, 12, 13, 14))).toBe(6);
  expect(ring.space).toBe(0);
  expect([...ring.read()]).toEqual([5, 6, 7, 8, 9, 10, 11, 12]);
  expect(ring.readByte()).toBe(-1);
});

test('positions may wrap round 32 bits', () => {
  const ring = new ByteRing(4);
  new Int32Array(ring.buffer).set([-2, -2]);
  for (let i = 0; i < 10; i++) {
    expect(ring.write(Uint8Array.of(i, i + 1, i + 2))).toBe(3);
    expect([...ring.read()]).toEqual([i, i + 1, i + 2]);
  }
});

test('a bell rings once for each wish', () => {
  const ring = new ByteRing(4);
  expect(ring.wantData()).toBe(true);
  ring.write(Uint8Array.of(1));
  expect([ring.takeDataBell(), ring.takeDataBell()]).toEqual([true, false]);
  expect(ring.wantData()).toBe(false);
  ring.write(Uint8Array.of(2, 3, 4));
  expect(ring.wantSpace()).toBe(true);
  ring.readByte();
  expect([ring.takeSpaceBell(), ring.takeSpaceBell()]).toEqual([true, false]);
});

test('two threads lose and reorder nothing', async () => {
  const ring = new ByteRing(256);
  const total = 200_000;
  const code = `
    import { workerData } from 'node:worker_threads';
    const { ByteRing } = await import(workerData.module);
    const ring = new ByteRing(workerData.buffer);
    for (let sent = 0; sent < workerData.total; ) {
      const piece = new Uint8Array(Math.min(1 + (sent % 97), workerData.total - sent));
      for (let i = 0; i < piece.length; i++) piece[i] = (sent + i) * 31;
      sent += ring.write(piece);
    }`;
  const module = new URL('../../../src/vmm/byte_ring.ts', import.meta.url).href;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`), {
    workerData: { module, buffer: ring.buffer, total },
  });
  const exited = new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject));
  let received = 0;
  let wrong = 0;
  while (received < total) {
    const bytes = ring.read(64);
    for (const byte of bytes) if (byte !== ((received++ * 31) & 0xff)) wrong++;
    if (bytes.length === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  expect(wrong).toBe(0);
  await exited;
});
