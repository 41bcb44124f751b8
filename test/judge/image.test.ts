/** `nemu image` and `qemu-img` on each other's images: what one writes, the other reads and finds whole. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runNemu } from '../support/cli.ts';
import { hasQemuImg, qemuCheck, qemuImg } from '../support/qemu_img.ts';
import { random as seeded } from '../support/random.ts';

const MIB = 1 << 20;
const SIZE = 12 * MIB + 512;

/** Text that compresses, noise that does not, and holes. */
function content(seed: number, size = SIZE): Buffer {
  const random = seeded(seed);
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; ) {
    const length = Math.min(size - at, 1 + random(300_000));
    const kind = random(3);
    if (kind === 1) bytes.fill(`line ${at} of a file that is much like the next\n`, at, at + length);
    else if (kind === 2) for (let i = at; i < at + length; i++) bytes[i] = random(256);
    at += length;
  }
  return bytes;
}

describe.skipIf(!hasQemuImg())('images that QEMU reads too', () => {
  let folder: string;
  let count = 0;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'nemu-image-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const path = (name: string) => join(folder, `${count++}-${name}`);

  const nemu = async (...args: string[]): Promise<string> => {
    const { status, stdout, stderr } = await runNemu(['image', ...args], { cwd: folder });
    expect({ args, status, stderr }).toEqual({ args, status: 0, stderr: '' });
    return stdout.toString();
  };
  const qemu = async (...args: string[]): Promise<string> => {
    const { status, stdout, stderr } = await qemuImg(...args);
    expect({ args, status, stderr }).toEqual({ args, status: 0, stderr: '' });
    return stdout;
  };
  const same = async (a: string, b: string) => {
    await nemu('compare', '--strict', a, b);
    await qemu('compare', a, b);
  };
  const raw = (seed: number, size?: number): string => {
    const file = path('disk.img');
    writeFileSync(file, content(seed, size));
    return file;
  };

  const SHAPES = [
    'compat=1.1',
    'compat=0.10',
    'cluster_size=512',
    'cluster_size=2M',
    'lazy_refcounts=on',
    'refcount_bits=1',
    'refcount_bits=64',
    'extended_l2=on',
    'extended_l2=on,cluster_size=16k',
    'preallocation=metadata',
    'preallocation=falloc',
    'preallocation=full,cluster_size=4k',
    'compression_type=zstd',
  ];

  test.each(SHAPES)('%s: made, filled and read by both', { timeout: 60_000 }, async (options) => {
    const source = raw(1);
    const [ours, theirs, back, empty] = ['a.qcow2', 'b.qcow2', 'c.img', 'e.qcow2'].map(path);
    await nemu('create', '-o', options, empty, '48M');
    expect(await qemuCheck(empty)).toBe('');
    await nemu('convert', '-o', options, source, ours);
    expect(await qemuCheck(ours)).toBe('');
    await same(source, ours);
    await qemu('convert', '-O', 'qcow2', '-o', options, source, theirs);
    await nemu('check', theirs);
    await same(source, theirs);
    await nemu('convert', '-O', 'raw', theirs, back);
    expect(readFileSync(back).equals(readFileSync(source))).toBe(true);
    const [a, b] = [
      JSON.parse(await nemu('info', '--json', ours)),
      JSON.parse(await qemu('info', '--output=json', ours)),
    ];
    delete b.children;
    expect(a).toEqual({ ...b, 'actual-size': a['actual-size'] });
  });

  test.each(['zlib', 'zstd'])('%s compression, both ways', { timeout: 60_000 }, async (kind) => {
    const source = raw(2);
    const [ours, theirs] = ['a.qcow2', 'b.qcow2'].map(path);
    const options = ['-c', '-o', `compression_type=${kind}`];
    await nemu('convert', ...options, source, ours);
    expect(await qemuCheck(ours)).toBe('');
    await same(source, ours);
    await qemu('convert', '-O', 'qcow2', ...options, source, theirs);
    await nemu('check', theirs);
    await same(source, theirs);
    const [a, b] = [ours, theirs].map((file) => readFileSync(file).length);
    expect(a).toBeLessThan(b * 1.15);
  });

  test('overlays: rebase and commit leave what the disk held', { timeout: 60_000 }, async () => {
    const [base, other] = [path('base.qcow2'), path('other.qcow2')];
    const [first, second] = [raw(3), raw(4, 8 * MIB)];
    await nemu('convert', first, base);
    await nemu('convert', second, other);
    const overlay = path('overlay.qcow2');
    await nemu('create', '-b', base, overlay);
    execFileSync('qemu-io', ['-c', 'write -P 7 1M 300k', '-c', 'write -z 5M 2M', overlay]);
    const whole = path('whole.img');
    await qemu('convert', '-O', 'raw', overlay, whole);
    await nemu('rebase', '-b', other, overlay);
    expect(JSON.parse(await qemu('info', '--output=json', overlay))).toMatchObject({
      'backing-filename': other,
      'backing-filename-format': 'qcow2',
    });
    await same(whole, overlay);
    expect(await qemuCheck(overlay)).toBe('');
    await nemu('commit', overlay);
    await same(whole, overlay);
    await same(whole, other);
    expect(await qemuCheck(other)).toBe('');
    await nemu('rebase', '-b', '', overlay);
    await same(whole, overlay);
    expect(JSON.parse(await nemu('info', '--json', overlay))).not.toHaveProperty('backing-filename');
  });

  test('snapshots that QEMU made, and the other way round', { timeout: 60_000 }, async () => {
    const image = path('snap.qcow2');
    await nemu('convert', raw(5), image);
    const states: Record<string, Buffer> = {};
    const read = async (...from: string[]) => {
      const to = path('state.img');
      await nemu('convert', '-O', 'raw', ...from, image, to);
      return readFileSync(to);
    };
    for (const [i, name] of ['q1', 'n1', 'q2', 'n2'].entries()) {
      execFileSync('qemu-io', ['-c', `write -P ${i + 1} ${i}M 1500k`, image]);
      if (name.startsWith('q')) await qemu('snapshot', '-c', name, image);
      else await nemu('snapshot', '--create', name, image);
      states[name] = await read();
      expect(await qemuCheck(image)).toBe('');
      await nemu('check', image);
    }
    for (const name of ['q1', 'n1', 'q2']) expect((await read('--snapshot', name)).equals(states[name])).toBe(true);
    await nemu('snapshot', '--apply', 'q1', image);
    expect((await read()).equals(states.q1)).toBe(true);
    await qemu('snapshot', '-d', 'n1', image);
    await nemu('snapshot', '--delete', 'q1', image);
    expect(await qemuCheck(image)).toBe('');
    await qemu('snapshot', '-a', 'n2', image);
    expect((await read()).equals(states.n2)).toBe(true);
    const list = JSON.parse(await nemu('snapshot', '--json', image)) as { name: string }[];
    expect(list.map(({ name }) => name)).toEqual(['q2', 'n2']);
  });

  test('bitmaps stay, and know what we have written', { timeout: 60_000 }, async () => {
    const image = path('bitmap.qcow2');
    await nemu('create', image, '16M');
    await qemu('bitmap', '--add', '-g', '64k', image, 'since');
    await qemu('bitmap', '--add', '--disable', image, 'asleep');
    const small = raw(6, 4 * MIB);
    await nemu('convert', small, path('unused.qcow2'));
    const overlay = path('over.qcow2');
    await qemu('create', '-f', 'qcow2', '-b', image, '-F', 'qcow2', overlay);
    execFileSync('qemu-io', ['-c', 'write -P 9 8M 100k', overlay]);
    // The commit is what writes the image with the bitmaps.
    await nemu('commit', overlay);
    expect(await qemuCheck(image)).toBe('');
    const { 'format-specific': specific } = JSON.parse(await qemu('info', '--output=json', image));
    expect(specific.data.bitmaps).toMatchObject([
      { name: 'since', flags: ['auto'] },
      { name: 'asleep', flags: [] },
    ]);
    const map = execFileSync('qemu-img', [
      'map',
      '--output=json',
      '--image-opts',
      `driver=qcow2,file.filename=${image}`,
    ]).toString();
    expect(JSON.parse(map).some((each: { start: number; data: boolean }) => each.data && each.start === 8 * MIB)).toBe(
      true,
    );
  });

  test('sizes: larger, smaller, and what may not be', { timeout: 60_000 }, async () => {
    const image = path('size.qcow2');
    const source = raw(7);
    await nemu('convert', source, image);
    await nemu('resize', image, '+20M');
    expect(JSON.parse(await qemu('info', '--output=json', image))['virtual-size']).toBe(SIZE + 20 * MIB);
    const { status, stderr } = await runNemu(['image', 'resize', image, '4M']);
    expect(stderr).toMatch(/the rest is lost\.\n.*--shrink/);
    expect(status).toBe(2);
    await nemu('resize', '--shrink', image, '4M');
    expect(await qemuCheck(image)).toBe('');
    const head = path('head.img');
    writeFileSync(head, readFileSync(source).subarray(0, 4 * MIB));
    await same(head, image);
  });

  test('map tells what QEMU tells', { timeout: 60_000 }, async () => {
    const base = path('base.qcow2');
    await nemu('convert', raw(8), base);
    const overlay = path('top.qcow2');
    await nemu('create', '-b', base, overlay, '20M');
    execFileSync('qemu-io', ['-c', 'write -P 7 1M 300k', '-c', 'write -z 5M 2M', overlay]);
    const ours = JSON.parse(await nemu('map', '--json', overlay));
    const theirs = JSON.parse(await qemu('map', '--output=json', overlay));
    // QEMU before 8.2 does not tell what is compressed.
    for (const each of [...ours, ...theirs]) delete each.compressed;
    expect(ours).toEqual(theirs);
  });

  test('damage is found, named and repaired', { timeout: 60_000 }, async () => {
    const image = path('damaged.qcow2');
    await nemu('convert', raw(9), image);
    // A refcount that is too small, one that is too large: the first block follows header and table.
    const bytes = readFileSync(image);
    bytes.writeUInt16BE(0, 2 * 65536 + 6 * 2);
    bytes.writeUInt16BE(3, 2 * 65536 + 7 * 2);
    writeFileSync(image, bytes);
    const found = await runNemu(['image', 'check', image]);
    expect(found.stdout.toString()).toMatch(/ERROR: cluster 6 is counted 0 times and used 1\..*\nLeaked cluster 7/);
    expect(found.status).toBe(2);
    await nemu('check', '--repair', 'all', image);
    expect(await qemuCheck(image)).toBe('');
  });

  test('a conversion that is ended leaves nothing', { timeout: 60_000 }, async () => {
    const source = path('large.img');
    execFileSync('truncate', ['-s', '64G', source]);
    execFileSync('dd', ['if=/dev/urandom', `of=${source}`, 'bs=1M', 'count=200', 'conv=notrunc', 'status=none']);
    const target = path('never.qcow2');
    const before = readdirSync(folder).length;
    const { status } = await runNemu(['image', 'convert', '-c', source, target], {
      started: (pid) => setTimeout(() => process.kill(pid, 'SIGTERM'), 700),
    });
    expect(status).not.toBe(0);
    expect(readdirSync(folder).length).toBe(before);
  });
});
