/** Nodes of images, as other people's tool makes them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { imageFacts } from '../../../src/qmp/qcow2_header.ts';
import { FakeMachine, qmpServer } from '../../support/qmp.ts';

const MiB = 2 ** 20;
const NAME_AT = 512;

/** As much of a qcow2 image as says what it is. */
function qcow2(path: string, size: number, backing = ''): string {
  const header = Buffer.alloc(1024);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(3, 4);
  if (backing) {
    header.writeBigUInt64BE(BigInt(NAME_AT), 8);
    header.writeUInt32BE(backing.length, 16);
    header.write(backing, NAME_AT);
  }
  header.writeUInt32BE(16, 20);
  header.writeBigUInt64BE(BigInt(size), 24);
  writeFileSync(path, header);
  return path;
}

async function start() {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-images-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const fake = new FakeMachine();
  const server = qmpServer(fake.client);
  onTestFinished(server.close);
  return { at: (name: string) => join(folder, name), fake, peer: await server.connect() };
}

test('an image is what it says, or is refused at once', async () => {
  const { at, peer } = await start();
  const raw = at('raw');
  writeFileSync(raw, Buffer.alloc(MiB));
  const [base, top] = [qcow2(at('base'), 64 * MiB), qcow2(at('top'), 64 * MiB, 'base')];
  const node = (filename: string, more: object = {}) => ({
    ...{ driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename } },
    ...more,
  });
  const add = (options: object) => peer.execute('blockdev-add', options);
  await expect(add(node(raw))).rejects.toThrow('Image is not in qcow2 format');
  await expect(add(node(top, { backing: null }))).rejects.toThrow(/has a backing file, 'base'/);
  await expect(add(node(top, { backing: 'x' }))).rejects.toThrow(/'x' cannot be put there/);
  await expect(add(node(base, { 'detect-zeroes': 'on' }))).rejects.toThrow(/detect-zeroes must be off/);
  const file = { driver: 'file', 'node-name': 'f', filename: raw };
  await expect(add({ ...file, locking: 'off' })).rejects.toThrow(/locking must be auto or on/);
  // Nothing of it has stayed.
  expect(await peer.execute('query-named-block-nodes')).toEqual([]);

  await add(node(base, { backing: null, 'detect-zeroes': 'off', cache: { direct: true, 'no-flush': false } }));
  await add({ ...file, locking: 'auto', aio: 'io_uring' });
  expect(await peer.execute('query-named-block-nodes')).toMatchObject([
    { drv: 'file', file: base },
    { 'node-name': 'n', drv: 'qcow2', image: { 'virtual-size': 64 * MiB }, backing_file_depth: 0 },
    { 'node-name': 'f', image: { 'virtual-size': MiB } },
  ]);
});

test('a disk tells the files behind its image', async () => {
  const { at, fake, peer } = await start();
  writeFileSync(at('raw'), Buffer.alloc(MiB));
  qcow2(at('middle'), MiB, at('raw'));
  const top = qcow2(at('top'), MiB, 'middle');
  fake.disks = [
    { ...{ name: 'vda', file: top, format: 'qcow2', probed: false, readonly: false, size: MiB }, throttle: {} },
  ];
  expect(await peer.execute('query-block')).toMatchObject([
    {
      inserted: {
        ...{ backing_file: at('middle'), backing_file_depth: 2 },
        image: { 'backing-filename': 'middle', 'full-backing-filename': at('middle') },
      },
    },
  ]);
  // One that leads back to itself has an end, and so has one whose file is gone.
  qcow2(at('raw'), MiB, 'top');
  expect(imageFacts(top, 'qcow2').depth).toBe(200);
  rmSync(at('middle'));
  expect(imageFacts(top, 'qcow2')).toMatchObject({ depth: 1, size: MiB });
});
