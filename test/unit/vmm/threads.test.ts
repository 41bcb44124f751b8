import { join } from 'node:path';
import { build } from 'esbuild';
import { expect, test } from 'vitest';

test('the thread of a vCPU loads what runs a vCPU: no board, no schemas, no images', async () => {
  const { metafile } = await build({
    absWorkingDir: join(import.meta.dirname, '../../..'),
    entryPoints: ['src/vmm/vcpu_entry.ts'],
    ...{ bundle: true, platform: 'node', format: 'esm', target: 'node24', external: ['koffi'] },
    ...{ write: false, metafile: true },
  });
  const modules = Object.keys(metafile.inputs);
  const folders = new Set(modules.map((path) => path.split('/').slice(0, 2).join('/')));
  // Of the devices: the PM timer's clock and the layout of configuration space, which the thread serves itself.
  expect([...folders].sort()).toEqual(['src/devices', 'src/ffi', 'src/vmm']);
  expect(modules).not.toContain('src/vmm/board.ts');
  expect(modules).not.toContain('src/vmm/machine_thread.ts');
});
