import { defineConfig } from 'vitest/config';

/** Tests that boot stock kernels, mostly in the lab. */
const GUESTS = ['test/guest/**/*.test.ts', 'test/terminal/**/*.test.ts'];

export default defineConfig({
  test: {
    // Worker threads of ours live in the tested process, and vCPU threads block in system calls: one
    // process a test file keeps a fault in one from ending the others.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 120_000,
    projects: [
      // The lab's emulated processors lose an interrupt or a register now and then (docs/architecture.md), and such a guest
      // hangs or dies of it: it is booted once more, and the report says that it was.
      { extends: true, test: { name: 'guests', include: GUESTS, retry: 1 } },
      { extends: true, test: { name: 'all else', include: ['test/**/*.test.ts'], exclude: GUESTS } },
    ],
  },
});
