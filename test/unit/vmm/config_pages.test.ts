import { expect, onTestFinished, test, vi } from 'vitest';
import { ConfigPages } from '../../../src/vmm/pci/config_pages.ts';

const NOBODY = 0xffffffff;

test('a function that stays is there at every moment of a change around it', () => {
  const pages = new ConfigPages();
  const [stays, goes, comes] = [1, 2, 3].map((id) => {
    const page = pages.take() as number;
    pages.page(page)[0] = id;
    return page;
  }) as [number, number, number];
  // Two that share a word of the index, and one elsewhere.
  pages.setIndex(
    new Map([
      [0x100, stays],
      [0x101, goes],
      [0x208, goes],
    ]),
  );
  const store = Atomics.store;
  let stores = 0;
  vi.spyOn(Atomics, 'store').mockImplementation(((words: Int32Array, at: number, value: number) => {
    const stored = store(words, at, value);
    stores++;
    expect(pages.read(0x100, 0, 4)).toBe(1);
    return stored;
  }) as typeof Atomics.store);
  onTestFinished(() => void vi.restoreAllMocks());
  pages.setIndex(
    new Map([
      [0x100, stays],
      [0x101, comes],
      [0x300, goes],
    ]),
  );
  expect(stores).toBe(3);
  expect([0x100, 0x101, 0x208, 0x300].map((bdf) => pages.read(bdf, 0, 4))).toEqual([1, 3, NOBODY, 2]);
  // Nothing changes: nothing is written.
  pages.setIndex(
    new Map([
      [0x100, stays],
      [0x101, comes],
      [0x300, goes],
    ]),
  );
  expect(stores).toBe(3);
});
